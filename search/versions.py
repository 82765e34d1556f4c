"""Which versions may work on a study together; what they are here."""

import optuna

from aesearch import __version__
from aesearch.studies.errors import StudyMismatchError
from aesearch.studies.store.study_rows import StudyRow


def check_versions(study: StudyRow) -> None:
    """Refuse to go on with a study of another major version of aesearch or of Optuna.

    What is suggested next depends on both, and a study has one history.

    Raises
    ------
    StudyMismatchError
        With the command that installs the right one.
    """
    made = {
        "aesearch": study.aesearch_version,
        "optuna": study.facts.get("versions", {}).get("optuna"),
    }
    for package, here in (("aesearch", __version__), ("optuna", optuna.__version__)):
        major = str(made[package]).partition(".")[0]
        if major.isdecimal() and major != here.partition(".")[0]:
            raise StudyMismatchError(
                f"study {study.name!r} must go on with {package} {major}.x, with which it was made "
                f"({made[package]}), got {here}; run pip install '{package}=={made[package]}', or "
                "name a new study with --study"
            )
