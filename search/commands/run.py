"""The command ``run``: options to ``aesearch.search``, its result to the screen."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

import aesearch
from aesearch.commands.arguments import Debug, complete_preset, complete_sampler
from aesearch.commands.ending import ending, same_command
from aesearch.options import STORAGE_VARIABLE

_STUDY, _IMAGES, _HOW, _WHERE, _SAID = "Study", "Images", "Search", "Where", "Output"


class RunCommand(TyperCommand):
    """``run`` whose options are described by the specification, which is read for its help only."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Describe the options that stand for settings, then write the help."""
        from aesearch.studies.spec.flags import FLAGS, flag_help  # noqa: PLC0415 - imports pydantic

        for parameter in self.params:
            if parameter.name in FLAGS and isinstance(parameter, TyperOption):
                parameter.help = flag_help(parameter.name)
        super().format_help(ctx, formatter)


def _flag(panel: str, **more: Any) -> Any:
    return typer.Option(rich_help_panel=panel, show_default=False, **more)


def run(  # noqa: PLR0917 - Typer calls it by name
    preset: Annotated[
        str | None,
        typer.Argument(
            metavar="PRESET",
            help="Start from a preset: see 'aesearch presets'.",
            autocompletion=complete_preset,
        ),
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
    dataset: Annotated[str | None, _flag(_STUDY)] = None,
    data_dir: Annotated[Path | None, _flag(_WHERE)] = None,
    test: Annotated[Path | None, _flag(_IMAGES)] = None,
    noisy: Annotated[Path | None, _flag(_IMAGES)] = None,
    noisy_test: Annotated[Path | None, _flag(_IMAGES)] = None,
    labels: Annotated[Path | None, _flag(_IMAGES)] = None,
    groups: Annotated[str | None, _flag(_IMAGES)] = None,
    stratify: Annotated[bool | None, _flag(_IMAGES)] = None,
    resize: Annotated[str | None, _flag(_IMAGES)] = None,
    colour: Annotated[str | None, _flag(_IMAGES)] = None,
    white: Annotated[float | None, _flag(_IMAGES)] = None,
    bad_files: Annotated[str | None, _flag(_IMAGES)] = None,
    folds: Annotated[int | None, _flag(_STUDY)] = None,
    trials: Annotated[int | None, _flag(_STUDY)] = None,
    epochs: Annotated[str | None, _flag(_STUDY)] = None,
    batch_size: Annotated[str | None, _flag(_STUDY)] = None,
    architecture: Annotated[str | None, _flag(_STUDY)] = None,
    encoding_dim: Annotated[str | None, _flag(_STUDY)] = None,
    corruption: Annotated[str | None, _flag(_STUDY)] = None,
    corruption_level: Annotated[float | None, _flag(_STUDY)] = None,
    sampler: Annotated[str | None, _flag(_HOW, autocompletion=complete_sampler)] = None,
    pruner: Annotated[str | None, _flag(_HOW)] = None,
    objectives: Annotated[str | None, _flag(_HOW)] = None,
    select: Annotated[str | None, _flag(_HOW)] = None,
    max_parameters: Annotated[int | None, _flag(_HOW)] = None,
    seed: Annotated[int | None, _flag(_HOW)] = None,
    device: Annotated[str | None, _flag(_WHERE)] = None,
    precision: Annotated[str | None, _flag(_WHERE)] = None,
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
    study: Annotated[str | None, _flag(_STUDY)] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder. Default: runs/<study>.", rich_help_panel=_WHERE),
    ] = None,
    timeout: Annotated[float | None, _flag(_HOW)] = None,
    enqueue: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Configurations that are tried next: a YAML list, a best.yaml or a trials.csv "
            "of another study; repeat for more.",
            rich_help_panel=_HOW,
            show_default=False,
        ),
    ] = None,
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
    options = locals()
    interrupted = f"interrupted; everything finished is kept. To go on: {same_command()}"
    with ending(debug=debug, interrupted=interrupted):
        from aesearch import settings  # noqa: PLC0415 - imports pydantic, NumPy

        specs = settings.study_specs(
            options,
            preset=preset,
            spec=spec,
            overrides=overrides or (),
            quick=quick,
        )
        how: dict[str, Any] = {"ray": ray, "gpus_per_worker": gpus_per_worker}
        if print_config:
            from aesearch.driver.print_config import resolved_yaml  # noqa: PLC0415 - imports torch

            texts = [resolved_yaml(each, detach=detach, **how) for each in specs]
            typer.echo("---\n".join(texts), nl=False)
            return
        how |= {"storage": storage, "workers": workers, "quiet": quiet}
        how["enqueue"] = enqueue or []
        _carry_out(specs, detach=detach, out=out, as_json=as_json, **how)


def _carry_out(
    specs: "list[aesearch.StudySpec]", *, detach: bool, out: Path | None, as_json: bool, **how: Any
) -> None:
    from aesearch.driver import detached, run_series  # noqa: PLC0415 - imports torch

    if detach:
        left = [detached.detach(spec, out=out, **how) for spec in specs]
        words = "\n".join(map(detached.text, left))
        typer.echo(json.dumps(detached.document(left).to_dict()) if as_json else words)
        return
    if len(specs) == 1:
        results = [aesearch.search(spec=specs[0], out=out, **how)]
    else:
        results = run_series.run_series(
            specs,
            out=out,
            finished=lambda result: None if as_json else typer.echo(_text(result) + "\n"),
            **how,
        )
    if as_json:
        printed = run_series.document(results, is_series=len(specs) > 1)
        typer.echo(json.dumps(printed.to_dict()))
    elif len(specs) == 1:
        typer.echo(_text(results[0]))


def _text(result: "aesearch.SearchResult") -> str:
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
