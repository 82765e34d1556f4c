"""The report of a study in a store: everything that the page shows, read and handed over."""

from sqlalchemy.engine import Engine

from aesearch.studies import frames, store
from aesearch.studies.evaluation_results import read_evaluation, read_pictures
from aesearch.studies.report.page import report_page
from aesearch.studies.retrain_results import retrain_curves


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
    study = store.find_study(engine, name)
    return report_page(
        store.snapshot(engine, name),
        frames.curves(store.curves(engine, study)),
        retrain_curves=retrain_curves(engine, study),
        document=read_evaluation(engine, study),
        pictures=read_pictures(engine, study),
    )
