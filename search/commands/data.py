"""Commands about what comes with aesearch or is fetched for it: data sets and presets."""

import json
from pathlib import Path
from typing import Annotated

import typer

from aesearch.commands.arguments import Debug, Quiet
from aesearch.commands.ending import ending
from aesearch.options import OptionError

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
        from aesearch.terminal.display import make_display  # noqa: PLC0415

        with make_display(quiet=quiet) as display:
            files = fetch_named(name, data_dir, progress=display.download)
        for file in files:
            typer.echo(str(file))
        if not files:
            typer.echo(f"{name} comes with scikit-learn: there is nothing to fetch")


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
        from aesearch.studies.spec import load, strict_yaml  # noqa: PLC0415

        if schema and name is not None:
            raise OptionError(
                f"--schema must be given without NAME, got {name!r}; the schema is of all of them"
            )
        if schema:
            typer.echo(json.dumps(load.json_schema(), indent=2))
            return
        if name is not None:
            check_preset(name)
            typer.echo(load.preset_text(name), nl=False)
            return
        names = load.preset_names()
        widest = max(map(len, names))
        for each in names:
            document, _ = strict_yaml.parse(load.preset_text(each), each)
            typer.echo(f"{each:{widest}}  {document.get('description', '').strip()}")
