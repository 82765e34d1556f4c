"""Where the password of a database comes from when the URL has none: a file that is named."""

import os
from pathlib import Path

from aesearch.studies.errors import StoreError

PASSWORD_VARIABLE = "AESEARCH_PASSWORD_FILE"  # noqa: S105 - its name, not a password


def password_from_file() -> dict[str, str]:
    r"""Read the password from the file that ``AESEARCH_PASSWORD_FILE`` names.

    Returns
    -------
    dict
        ``password`` for the driver; empty where the variable is not set. The whole file but
        the line breaks at its end, as the images of PostgreSQL read theirs.

    Raises
    ------
    StoreError
        The file cannot be read, or holds nothing or more than one line.
    """
    named = os.environ.get(PASSWORD_VARIABLE)
    if not named:
        return {}
    try:
        password = Path(named).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        # A UnicodeDecodeError quotes what it could not read.
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8 text"
        raise StoreError(
            f"{PASSWORD_VARIABLE} must name a file with the password, got {named!r}: {reason}"
        ) from None
    if not password or "\n" in password:
        lines = len(password.splitlines())
        raise StoreError(
            f"{PASSWORD_VARIABLE} must name a file with the password on its only line, "
            f"got {named!r} with {lines} lines"
        )
    return {"password": password}
