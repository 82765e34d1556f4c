"""Commands about what goes in: data sets, fetched or checked, and presets."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from aesearch.commands.arguments import Debug, Json, Quiet
from aesearch.commands.ending import ending
from aesearch.commands.run import RunCommand
from aesearch.options import OptionError
from aesearch.studies.presets import preset_names, preset_text

# Described by the specification, as in ``run``.
_FLAG: Any = typer.Option(show_default=False)

data_app = typer.Typer(help="Data sets.", no_args_is_help=True)


@data_app.callback()
def _data() -> None:
    pass


@data_app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="mnist, fashion-mnist, cifar10, …")],
    data_dir: Annotated[
        Path | None, typer.Option(help="Where to. Default: the user's cache folder.")
    ] = None,
    *,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bring a named data set to disk, so that later runs need no network.

    \b
    Example:
      aesearch data fetch fashion-mnist --data-dir data
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        from aesearch.data.load import fetch_named  # noqa: PLC0415 - imports NumPy
        from aesearch.terminal.display import make_display  # noqa: PLC0415 - imports Rich

        with make_display(quiet=quiet) as display:
            files = fetch_named(name, data_dir, progress=display.download)
        for file in files:
            typer.echo(str(file))
        if not files:
            typer.echo(f"{name} comes with scikit-learn: there is nothing to fetch")


@data_app.command(cls=RunCommand)
def check(  # noqa: PLR0917 - Typer calls it by name
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Name of a data set, or path of images.")
    ],
    test: Annotated[Path | None, _FLAG] = None,
    noisy: Annotated[Path | None, _FLAG] = None,
    noisy_test: Annotated[Path | None, _FLAG] = None,
    labels: Annotated[Path | None, _FLAG] = None,
    groups: Annotated[str | None, _FLAG] = None,
    resize: Annotated[str | None, _FLAG] = None,
    colour: Annotated[str | None, _FLAG] = None,
    white: Annotated[float | None, _FLAG] = None,
    bad_files: Annotated[str | None, _FLAG] = None,
    data_dir: Annotated[Path | None, _FLAG] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Anything in the section data."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="PNG of what a network will see. Default: NAME-contact-sheet.png."),
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a sheet that exists.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what is read of images, and what is left out; draw some of them. Nothing is trained.

    \b
    Examples:
      aesearch data check photos/
      aesearch data check photos/ --resize 64-fit --bad-files skip
    """  # noqa: D301 - \b is Typer's
    options = {
        "dataset": dataset,
        "data_dir": data_dir,
        "test": test,
        "noisy": noisy,
        "noisy_test": noisy_test,
        "labels": labels,
        "groups": groups,
        "resize": resize,
        "colour": colour,
        "white": white,
        "bad_files": bad_files,
    }
    with ending(debug=debug):
        from aesearch.data import contact_sheet  # noqa: PLC0415 - imports pydantic, NumPy

        found, n_drawn = contact_sheet.checked(options, overrides or (), path=sheet, force=force)
        if as_json:
            typer.echo(json.dumps(found.to_dict()))
        else:
            typer.echo(f"{found.dataset}: {found.read}")
            typer.echo(f"{found.sheet}: {n_drawn} of them as a network will see them")


def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show the YAML of this one.")
    ] = None,
    *,
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Print the JSON Schema of a specification, for editors."),
    ] = False,
    debug: Debug = False,
) -> None:
    """List the presets, or show one.

    \b
    Example:
      aesearch presets mnist > study.yaml
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        from aesearch.settings import check_preset  # noqa: PLC0415 - imports NumPy, pydantic
        from aesearch.studies.spec import load, strict_yaml  # noqa: PLC0415 - imports pydantic

        if schema and name is not None:
            raise OptionError(
                f"--schema must be given without NAME, got {name!r}; the schema is of all of them"
            )
        if schema:
            typer.echo(json.dumps(load.json_schema(), indent=2))
            return
        if name is not None:
            check_preset(name)
            typer.echo(preset_text(name), nl=False)
            return
        names = preset_names()
        widest = max(map(len, names))
        for each in names:
            document, _ = strict_yaml.parse(preset_text(each), each)
            typer.echo(f"{each:{widest}}  {document.get('description', '').strip()}")
