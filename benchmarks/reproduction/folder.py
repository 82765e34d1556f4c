"""The folder of records beside docs/reports.md: written from a store, read for the page."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Engine

from aesearch.studies.results.output_files import make_folder, write_whole
from aesearch.studies.spec.load import diff, spec_from_mapping
from aesearch.studies.spec.quick import QUICK
from aesearch.studies.spec.resolved import as_stored, resolve
from aesearch.studies.spec.series import load_series
from aesearch.studies.spec.study import StudySpec
from aesearch.studies.store import study_rows
from reproduction.evidence import NotMeasuredError
from reproduction.record import StudyRecord, picture_file, read_record, record_text
from reproduction.recording import StoredStudy
from reproduction.reported import Ours, Report, asked_of

# Where the images lie and how long was waited change no figure; of the evaluation the page has
# pictures, which say what they show.
_MAY_DIFFER = ("description", "data.data_dir", "search.timeout", "evaluation.")

Message = Callable[[str], None]


def preset_specs(reports: Iterable[Report], ours: Ours, *, quick: bool) -> dict[str, StudySpec]:
    """Give what today's presets say of every study that the page is of, by its name."""
    presets = [report.preset for report in reports] + [ours.dense, ours.conv]
    specs = [spec for preset in presets for spec in load_series(preset=preset, quick=quick)]
    return {str(spec.name): spec for spec in specs}


def other_settings(
    preset: StudySpec,
    made: StudySpec,
    *,
    image_shape: Sequence[int],
    n_images: int,
) -> list[str]:
    """List what a study was run with that its preset has otherwise today; empty if nothing.

    Parameters
    ----------
    preset, made : StudySpec
        As it is today, and as it was when the study was run.
    image_shape, n_images
        Of the study.
    """
    channels, height, width = image_shape
    size: dict[str, Any] = {
        "image_shape": (channels, height, width),
        "n_train": n_images,
        "device": made.compute.device,
    }
    made = resolve(made, **size)
    today = as_stored(preset, resolve(preset, **size), made, image_shape=(channels, height, width))
    # A small version shows that everything is measured, on whatever images.
    small = ("data.",) if made.name and made.name.endswith(QUICK) else ()
    return diff(made, today, may_differ=(*_MAY_DIFFER, *small))


def record_store(
    engine: Engine,
    folder: Path,
    reports: Sequence[Report],
    ours: Ours,
    *,
    data_dir: Path | None,
    quick: bool,
    message: Message,
) -> None:
    """Write the records of the presets' studies that are finished in a store, and pictures."""
    asked = asked_of(reports)
    in_store = set(study_rows.study_names(engine))
    for name, preset in preset_specs(reports, ours, quick=quick).items():
        if name not in in_store:
            continue
        try:
            study = StoredStudy(engine, name, None if data_dir is None else str(data_dir))
        except NotMeasuredError as error:
            message(str(error))
            continue
        facts = study.facts
        differences = other_settings(
            preset, study.spec, image_shape=facts["image_shape"], n_images=facts["n_images"]
        )
        if differences:
            message(f"study {name!r} has other settings than its preset: {'; '.join(differences)}")
            continue
        word = name.removesuffix(QUICK)
        shown = [s.picture for report in reports for s in report.shown if s.study == word]
        record, pictures = study.record(asked.get(word, ()), shown)
        make_folder(folder)
        for picture in pictures:
            write_whole(folder / picture_file(name, picture.name), picture.png)
        write_whole(folder / f"{name}.json", record_text(record))
        message(f"recorded: {folder / name}.json")


def read_records(
    folder: Path, reports: Sequence[Report], ours: Ours, *, quick: bool, message: Message
) -> list[StudyRecord]:
    """Read the records of a folder, but those of other settings than the presets have today.

    Raises
    ------
    RecordError
        A file is no record.
    """
    found = []
    for name, preset in preset_specs(reports, ours, quick=quick).items():
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        record = read_record(path)
        made = spec_from_mapping(record.spec, str(path))
        differences = other_settings(
            preset, made, image_shape=record.image_shape, n_images=record.n_images
        )
        if differences:
            message(f"{path} is of other settings than its preset: {'; '.join(differences)}")
        else:
            found.append(record)
    return found
