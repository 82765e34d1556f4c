"""The command ``aesearch``: its commands together; what each does is in the package ``commands``.

Nothing heavy is imported here or there before a command runs: ``--help`` is fast.
"""

import io
import sys
from typing import Annotated

import typer

from aesearch import __version__
from aesearch.commands.data import data_app, presets
from aesearch.commands.evaluate import evaluate
from aesearch.commands.exchange import import_trials, track
from aesearch.commands.init import init
from aesearch.commands.pages import dashboard, report
from aesearch.commands.run import RunCommand, run
from aesearch.commands.score import score
from aesearch.commands.studies import export, list_studies, show, status, trials
from aesearch.commands.train import train, verify
from aesearch.commands.use import denoise, encode, interpolate, reconstruct
from aesearch.commands.whole import copy, delete, exclude, rename
from aesearch.commands.worker import worker

app = typer.Typer(
    name="aesearch",
    help="The best autoencoder for your images, and how sure that choice is.",
    epilog="Start with: aesearch run --folds 3 --trials 50",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"aesearch {__version__}")
        raise typer.Exit


@app.callback()
def _aesearch(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


app.command(cls=RunCommand)(run)
app.command()(train)
app.command()(verify)
app.command()(evaluate)
app.command("list")(list_studies)
app.command()(show)
app.command()(trials)
app.command()(export)
app.command("import")(import_trials)
app.command()(report)
app.command()(track)
app.command()(dashboard)
app.command()(encode)
app.command()(score)
app.command()(reconstruct)
app.command()(denoise)
app.command()(interpolate)
app.command()(presets)
app.command()(init)
app.command()(rename)
app.command()(copy)
app.command()(delete)
app.command()(exclude)
app.command()(status)
app.command()(worker)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line; what a terminal cannot show is escaped, and fails nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="aesearch")
