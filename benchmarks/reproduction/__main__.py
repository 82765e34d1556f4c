"""The command that writes docs/reports.md: ``python benchmarks/reproduction``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aesearch.commands.arguments import Debug, Storage
from aesearch.commands.ending import ending
from aesearch.options import DEFAULT_STORAGE, storage_or_default


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
    """Hold the figures and claims of the five reports against the studies that were run.

    Finished studies of the store are recorded in the folder beside the page (docs/reports/*.json);
    the page is written from all records there, so that it outlives the store, and studies may
    come from several. Without a store it is written from the records alone. What was not run is
    said to be so.

    \b
    Example:
      aesearch run dense-bottleneck
      python benchmarks/reproduction --out docs/reports.md
    """  # noqa: D301 - \b is Typer's
    with ending(debug=debug):
        from aesearch.models.runtime import prepare_process
        from aesearch.studies.results.output_files import make_folder, write_whole
        from aesearch.studies.store.study_rows import existing_store
        from reproduction.evidence import Evidences
        from reproduction.folder import read_records, record_store
        from reproduction.page import make_page
        from reproduction.reported import load_reported

        def message(text: str) -> None:
            typer.echo(text, err=True)

        # As the workers do: the same store gives the same records to the last digit.
        prepare_process(1)
        reports, ours = load_reported()
        folder = out.with_suffix("")
        asked = storage_or_default(storage)
        if asked == DEFAULT_STORAGE and not Path(DEFAULT_STORAGE).exists():
            message(f"no store here ({DEFAULT_STORAGE}): from the records of {folder} alone")
        else:
            with existing_store(asked) as engine:
                record_store(
                    engine, folder, reports, ours, data_dir=data_dir, quick=quick, message=message
                )
        records = read_records(folder, reports, ours, quick=quick, message=message)
        make_folder(out.parent)
        write_whole(out, make_page(Evidences(records, quick=quick), folder.name))
        typer.echo(str(out))


if __name__ == "__main__":
    typer.run(reproduction)
