"""The command ``run``: options to ``aesearch.search``, its result to the screen."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aesearch.commands import detached
from aesearch.commands.arguments import Debug
from aesearch.commands.ending import ending, same_command
from aesearch.options import STORAGE_VARIABLE, flag_help, study_specs

if TYPE_CHECKING:
    from collections.abc import Callable

    from aesearch.api import SearchResult
    from aesearch.outputs import FinishedStudy
    from aesearch.studies.spec.study import StudySpec

_STUDY, _HOW, _WHERE, _SAID = "Study", "Search", "Where", "Output"


def _flag(name: str, panel: str) -> Any:
    return typer.Option(help=flag_help(name), rich_help_panel=panel, show_default=False)


def run(  # noqa: PLR0917 - Typer calls it by name
    preset: Annotated[
        str | None,
        typer.Argument(metavar="PRESET", help="Start from a preset: see 'aesearch presets'."),
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from a YAML file.", rich_help_panel=_STUDY),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Anything in the specification; repeat for more. VALUE is YAML.",
            rich_help_panel=_STUDY,
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[str | None, _flag("dataset", _STUDY)] = None,
    data_dir: Annotated[Path | None, _flag("data_dir", _WHERE)] = None,
    folds: Annotated[int | None, _flag("folds", _STUDY)] = None,
    trials: Annotated[int | None, _flag("trials", _STUDY)] = None,
    epochs: Annotated[str | None, _flag("epochs", _STUDY)] = None,
    batch_size: Annotated[str | None, _flag("batch_size", _STUDY)] = None,
    architecture: Annotated[str | None, _flag("architecture", _STUDY)] = None,
    corruption: Annotated[str | None, _flag("corruption", _STUDY)] = None,
    corruption_level: Annotated[float | None, _flag("corruption_level", _STUDY)] = None,
    sampler: Annotated[str | None, _flag("sampler", _HOW)] = None,
    pruner: Annotated[str | None, _flag("pruner", _HOW)] = None,
    select: Annotated[str | None, _flag("select", _HOW)] = None,
    seed: Annotated[int | None, _flag("seed", _HOW)] = None,
    device: Annotated[str | None, _flag("device", _WHERE)] = None,
    precision: Annotated[str | None, _flag("precision", _WHERE)] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes. Default: one per GPU or core. Never changes a result.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar=STORAGE_VARIABLE,
            help="Database URL or SQLite file. Default: aesearch.db in this folder.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    study: Annotated[str | None, _flag("study", _STUDY)] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder. Default: runs/<study>.", rich_help_panel=_WHERE),
    ] = None,
    timeout: Annotated[float | None, _flag("timeout", _HOW)] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run the workers on this Ray cluster: host:6379, ray://host:10001, auto, local.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="F",
            help="GPUs that Ray gives each worker, also a part of one. Default: 1 with --device "
            "cuda.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    *,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A small version, named <study>-quick: 300 images, 5 epochs, 9 trials, unless an "
            "option says otherwise. It shows in seconds what would be done; its numbers mean "
            "nothing.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            help="Create the study and return: 'aesearch worker' works on it.",
            rich_help_panel=_WHERE,
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=_SAID),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress.", rich_help_panel=_SAID)
    ] = False,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print the resolved specification as YAML and do nothing.",
            rich_help_panel=_SAID,
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Search, cross-validate, choose, retrain, test, and write the run folder.

    The same command again goes on where the last one stopped. A preset or file that holds
    several studies runs one after another.

    \b
    Examples:
      aesearch run --folds 3 --trials 50
      aesearch run mnist --set 'space.encoding_dim.choices=[4,8,16,32]'
      aesearch run --dataset photos/ --study photos --timeout 3600
      aesearch run mnist --storage postgresql://me@host/studies --detach
      aesearch run mnist --corruption gaussian --corruption-level 0.5
      aesearch run dense-bottleneck --quick
      aesearch run mnist --storage postgresql://me@host/studies --ray auto --gpus-per-worker 0.5
    """  # noqa: D301 - \b is Typer's
    options = {
        "dataset": dataset,
        "data_dir": data_dir,
        "folds": folds,
        "trials": trials,
        "epochs": epochs,
        "batch_size": batch_size,
        "architecture": architecture,
        "corruption": corruption,
        "corruption_level": corruption_level,
        "sampler": sampler,
        "pruner": pruner,
        "select": select,
        "seed": seed,
        "device": device,
        "precision": precision,
        "timeout": timeout,
        "study": study,
    }
    interrupted = f"interrupted; everything finished is kept. To go on: {same_command()}"
    with ending(debug=debug, interrupted=interrupted):
        specs = study_specs(
            options, preset=preset, spec=spec, overrides=overrides or (), quick=quick
        )
        if print_config:
            device_of = _device_of(detach=detach, ray=ray, gpus_per_worker=gpus_per_worker)
            typer.echo("---\n".join(_resolved(each, device_of) for each in specs), nl=False)
            return
        how: dict[str, Any] = {"storage": storage, "out": out, "workers": workers, "quiet": quiet}
        how |= {"ray": ray, "gpus_per_worker": gpus_per_worker}
        (_detach if detach else _run)(specs, as_json=as_json, **how)


def _run(specs: "list[StudySpec]", *, out: Path | None, as_json: bool, **how: Any) -> None:
    from aesearch.api import search  # noqa: PLC0415 - imports torch
    from aesearch.driver.run_series import run_series  # noqa: PLC0415

    if len(specs) == 1:
        result = search(spec=specs[0], out=out, **how)
        typer.echo(json.dumps(_finished(result).to_dict()) if as_json else _text(result))
        return
    results = run_series(
        specs,
        out=out,
        finished=lambda result: None if as_json else typer.echo(_text(result) + "\n"),
        **how,
    )
    if as_json:
        from aesearch.outputs import FinishedSeries  # noqa: PLC0415

        typer.echo(json.dumps(FinishedSeries(list(map(_finished, results))).to_dict()))


def _detach(specs: "list[StudySpec]", *, as_json: bool, **how: Any) -> None:
    left = [detached.detach(spec, **how) for spec in specs]
    if as_json:
        from aesearch.outputs import DetachedSeries  # noqa: PLC0415 - imports SQLAlchemy

        typer.echo(json.dumps((left[0] if len(left) == 1 else DetachedSeries(left)).to_dict()))
    else:
        typer.echo("\n".join(map(detached.text, left)))


def _finished(result: "SearchResult") -> "FinishedStudy":
    from aesearch.outputs import FinishedStudy, RunFiles  # noqa: PLC0415 - imports SQLAlchemy

    return FinishedStudy(**vars(result.summary), files=RunFiles.of(result.folder))


def _device_of(
    *, detach: bool, ray: str | None, gpus_per_worker: float | None
) -> "Callable[[StudySpec], str]":
    """Choose what decides on the device of a study: this machine, or what is asked for."""
    from aesearch.device import planned_device, present_device  # noqa: PLC0415 - imports torch

    if ray is not None:
        from aesearch.workers.ray_cluster import Cluster  # noqa: PLC0415

        return Cluster(ray, gpus_per_worker).device
    return planned_device if detach else present_device


def _resolved(asked: "StudySpec", device_of: "Callable[[StudySpec], str]") -> str:
    """Write the specification with every ``auto`` made concrete, if the images are here."""
    from aesearch.data.load import known_name, load  # noqa: PLC0415 - --help must not pay for NumPy
    from aesearch.data.study_data import load_problem  # noqa: PLC0415
    from aesearch.studies.errors import DataMissingError  # noqa: PLC0415
    from aesearch.studies.spec.load import to_yaml  # noqa: PLC0415

    try:
        load(asked.data.dataset, asked.data.data_dir, download=False)
    except DataMissingError as error:
        if known_name(asked.data.dataset) is None:
            raise
        typer.echo(f"what is 'auto' depends on the images, which are not here: {error}", err=True)
        return to_yaml(asked)
    return to_yaml(load_problem(asked, device=device_of(asked)).spec)


def _text(result: "SearchResult") -> str:
    import shlex  # noqa: PLC0415 - beside its only use

    best = shlex.quote(str(result.folder / "best.yaml"))
    return "\n".join(
        [
            repr(result),
            "  report.html        everything on one page: open it in a browser",
            "  best.yaml          the winning configuration and what it reached",
            "  model.safetensors  the trained model: aesearch.load(path) gives it back",
            "  evaluation.json, evaluation.csv, robustness.csv, pictures/*.png",
            "  calibration.json   errors of ordinary images, for the p-values of aesearch score",
            "  study.yaml, trials.csv, curves.csv, worker-*.log",
            f"Next: aesearch verify {best}",
        ]
    )
