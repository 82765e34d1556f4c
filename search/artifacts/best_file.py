"""Reading ``best.yaml``, and whether a retraining agrees with it; ``retraining`` trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from aesearch.studies.errors import SpecError, StudyMismatchError
from aesearch.studies.results.best_result import DataResult, Result
from aesearch.studies.spec.former import with_former_settings
from aesearch.studies.spec.load import RESULT
from aesearch.studies.spec.problems import validated
from aesearch.studies.spec.strict_yaml import parse, read_text
from aesearch.studies.spec.study import StudySpec

if TYPE_CHECKING:  # imports torch, which a report has no need of
    from aesearch.data.study_data import Problem

BEST = "best.yaml"
# Relative: equal weights give an equal error but for the last bits of a sum.
_ROUNDING = 1e-6
Verdict = Literal["identical", "agrees", "differs"]


class _Document(BaseModel):
    result: Result


def load_best(path: str | Path) -> tuple[StudySpec, Result]:
    """Read a ``best.yaml``.

    Returns
    -------
    spec : StudySpec
        Its defaults are the winner: ``spec.configuration({})``.
    result : Result
        What it reached, by which seeds, on which data, with which versions.

    Raises
    ------
    SpecError
        It cannot be read, is not valid, or says of no result; every problem is named.
    """
    spec, result = load_trainable(path)
    if result is None:
        problem = (
            "result: must say what was reached, got none: this is a specification, not a "
            "best.yaml; 'aesearch run --spec' searches from it and writes one"
        )
        raise SpecError(str(path), [problem])
    return spec, result


def load_trainable(path: str | Path) -> tuple[StudySpec, Result | None]:
    """Read a ``best.yaml``, a run folder that holds one, or a plain specification without result.

    Raises
    ------
    SpecError
        It cannot be read or is not valid; every problem is named.
    """
    path = Path(path).expanduser()
    if (path / BEST).is_file():
        path /= BEST
    source = str(path)
    if not path.exists():
        there = Path("runs") / path
        where = str(there) if (there / BEST).is_file() else "runs/<study>"
        rule = "must be a best.yaml, the run folder that it lies in, or a specification"
        raise SpecError(source, [f"{rule}, got nothing at this path; a run writes to {where}"])
    tree, lines = parse(read_text(path), source)
    if not isinstance(tree, dict):
        raise SpecError(source, [f"must be a mapping of keys to values, got {tree!r:.60}"])
    written = tree.pop(RESULT, None)
    if written is not None:  # whole, by whatever version
        tree = with_former_settings(tree)
    spec = validated(StudySpec, tree, source=source, lines=lines)
    if written is None:
        return spec, None
    result = validated(_Document, {"result": written}, source=source, lines=lines).result
    exported = result.test.seed_index
    if exported not in {seed.seed_index for seed in result.retrained}:
        problem = f"result.test.seed_index: must be one of result.retrained, got {exported}"
        raise SpecError(source, [problem])
    return spec, result


def check_same_images(problem: "Problem", data: DataResult, source: str) -> None:
    """Refuse to retrain on other images, or another split, than the result was reached with.

    Raises
    ------
    StudyMismatchError
    """
    for key, what in (("fingerprint", "images"), ("split_sha256", "split")):
        recorded, here = getattr(data, key), getattr(problem, key)
        if recorded != here:
            raise StudyMismatchError(
                f"{what} must be those of {source} (sha256 {recorded[:12]}…), got {what} of "
                f"{problem.name} with sha256 {here[:12]}…; give the same images with --dataset, "
                "--data-dir, --test or --noisy, and leave seed, folds, test_fraction and limit as "
                "they were"
            )


@dataclass(frozen=True)
class Comparison:
    """A recorded test number beside the one that came out this time.

    Attributes
    ----------
    relative_difference : float
        Of the test MSE, relative to the recorded one.
    versions : dict
        Of what differs: ``{name: [recorded, here]}``; a version or the device.
    """

    verdict: Verdict
    recorded_mse: float
    mse: float
    relative_difference: float
    tolerance: float
    recorded_sha256: str
    sha256: str
    versions: dict[str, list[str]]

    def text(self) -> str:
        """Tell it in plain words."""
        percent = f"{100 * self.relative_difference:.2g}%"
        numbers = f"test MSE {self.mse:.7g}, recorded {self.recorded_mse:.7g}"
        words = {
            "identical": f"identical: same weights, test MSE {self.mse:.7g}",
            "agrees": f"agrees within {percent}: {numbers}",
            "differs": f"differs by {percent}, more than {100 * self.tolerance:g}%: {numbers}",
        }[self.verdict]
        changed = [f"{name} {old} -> {new}" for name, (old, new) in self.versions.items()]
        return words + (f"\nrecorded -> here: {', '.join(changed)}" if changed else "")


def compare(
    result: Result,
    *,
    mse: float,
    sha256: str,
    tolerance: float,
    versions: Mapping[str, str],
    devices: Sequence[str],
) -> Comparison:
    """Hold a retraining of the exported seed against what was recorded.

    Parameters
    ----------
    result : Result
        Of ``load_best``.
    mse, sha256
        Test MSE and weights of that seed this time.
    tolerance : float
        Largest relative difference of the test MSE that still agrees; >= 0.
    devices : (recorded, here)
    """
    recorded, before = result.test.mse, result.exported.weights_sha256
    difference = abs(mse - recorded) / recorded if recorded > 0 else abs(mse - recorded)
    verdict: Verdict = "agrees" if difference <= tolerance else "differs"
    if before == sha256 and difference <= _ROUNDING:
        verdict = "identical"
    changed = {
        name: [str(old), str(versions.get(name, "none"))]
        for name, old in result.versions.items()
        if old != versions.get(name)
    }
    if devices[0] != devices[1]:
        changed["device"] = list(devices)
    return Comparison(
        verdict=verdict,
        recorded_mse=recorded,
        mse=mse,
        relative_difference=difference,
        tolerance=tolerance,
        recorded_sha256=before,
        sha256=sha256,
        versions=changed,
    )
