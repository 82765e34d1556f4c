"""The report of a study in a store: everything that the page shows, read and handed over."""

from sqlalchemy.engine import Engine

from aesearch.studies.report.page import report_page
from aesearch.studies.results import frames
from aesearch.studies.store import study_rows
from aesearch.studies.store.evaluation_results import read_evaluation, read_pictures
from aesearch.studies.store.retrain_results import retrain_curves


def stored_report(engine: Engine, name: str) -> str:
    """Write the report of a study as it is at this moment.

    Returns
    -------
    str
        HTML; the same study gives the same text.

    Raises
    ------
    StudyNotFoundError
        There is no study of that name.
    """
    study = study_rows.find_study(engine, name)
    return report_page(
        study_rows.snapshot(engine, name),
        frames.curves(study_rows.curves(engine, study)),
        retrain_curves=retrain_curves(engine, study),
        document=read_evaluation(engine, study),
        pictures=read_pictures(engine, study),
    )
