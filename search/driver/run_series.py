"""A series of studies run one after another; what one study is run by is ``driver``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aesearch.api import SearchResult, search
from aesearch.outputs import FinishedSeries, FinishedStudy, RunFiles
from aesearch.studies.errors import RunFailedError
from aesearch.studies.results.output_files import default_folder
from aesearch.studies.spec.study import StudySpec


def run_series(
    specs: Sequence[StudySpec],
    *,
    out: Path | None = None,
    finished: Callable[[SearchResult], None] = lambda _result: None,
    **how: Any,
) -> list[SearchResult]:
    """Search, choose, retrain and test every study of a series, in order.

    A study that fails does not keep the others from being run. The same call again goes on
    where the last one stopped.

    Parameters
    ----------
    specs : sequence of StudySpec
        With names, all different.
    out : Path, optional
        Folder that gets a run folder for each study; None for ``runs``.
    finished : callable
        Told of each study as soon as its run folder is written.
    **how
        Storage, workers and the like: as for ``aesearch.search``.

    Returns
    -------
    list of SearchResult
        In order.

    Raises
    ------
    RunFailedError
        Some study failed; the others are finished.
    AesearchError
        What concerns all of them: the specification, the data, the store.
    """
    results: list[SearchResult] = []
    failures: list[str] = []
    for spec in specs:
        folder = None if out is None else out / default_folder(str(spec.name)).name
        try:
            result = search(spec=spec, out=folder, **how)
        except RunFailedError as error:
            failures.append(f"study {spec.name!r}: {error}")
            continue
        results.append(result)
        finished(result)
    if failures:
        listed = "\n".join(f"  - {failure}" for failure in failures)
        raise RunFailedError(
            f"every study must end with a winner, got {len(failures)} of {len(specs)} that did "
            f"not; the others are finished:\n{listed}"
        )
    return results


def document(results: Sequence[SearchResult], *, is_series: bool) -> FinishedStudy | FinishedSeries:
    """Give what ``aesearch run --json`` prints of one study or several."""
    found = [FinishedStudy(**vars(r.summary), files=RunFiles.of(r.folder)) for r in results]
    return FinishedSeries(found) if is_series else found[0]
