"""The command that writes docs/reports.md: ``python -m aesearch.reproduction``."""

from pathlib import Path
from typing import Annotated

import typer

from aesearch.commands.arguments import Debug, Storage
from aesearch.commands.ending import ending
from aesearch.options import storage_or_default


def reproduction(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("docs/reports.md"),
    storage: Storage = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where named data sets are kept. Default: where they were.")
    ] = None,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="From the small versions of the studies.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Hold the figures and claims of the five reports against the studies in a store.

    What was not run is said to be so.

    \b
    Example:
      aesearch run dense-bottleneck
      python -m aesearch.reproduction --out docs/reports.md
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        from aesearch.commands.stored import open_existing  # noqa: PLC0415 - imports SQLAlchemy
        from aesearch.models.runtime import prepare_process  # noqa: PLC0415 - imports torch
        from aesearch.reproduction.evidence import Evidences  # noqa: PLC0415
        from aesearch.reproduction.page import write_page  # noqa: PLC0415

        # As the workers do: the same store gives the same page to the last digit.
        prepare_process(1)
        engine = open_existing(storage_or_default(storage))
        try:
            write_page(Evidences(engine, data_dir=data_dir, quick=quick), out)
        finally:
            engine.dispose()
        typer.echo(str(out))


if __name__ == "__main__":
    typer.run(reproduction)
