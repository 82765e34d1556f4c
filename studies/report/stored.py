"""The report of a study that was read from its store."""

from aesearch.studies.report.page import report_page
from aesearch.studies.results import frames
from aesearch.studies.store.contents import StudyContents


def report_of(contents: StudyContents) -> str:
    """Write the report of a study.

    Parameters
    ----------
    contents : StudyContents
        With curves and pictures.

    Returns
    -------
    str
        HTML; the same study gives the same text.
    """
    return report_page(
        contents.snapshot,
        frames.curves(contents.curves),
        retrain_curves=contents.retrain_curves,
        evaluation=contents.evaluation,
        pictures=contents.pictures,
    )
