"""The errors that callers meet: each is an ``AesearchError`` and the builtin one would catch.

Messages follow one grammar: ``<name> must <rule>, got <value!r>; <remedy>``.
"""


class AesearchError(Exception):
    """Anything aesearch reports on purpose: one message that names the thing and the remedy.

    The command line prints it without a traceback and exits with ``exit_code``.
    """

    exit_code = 2


class SpecError(AesearchError, ValueError):
    """A study specification that is not valid; ``problems`` lists every one, each with its path."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = list(problems)
        count = f"{len(problems)} problem" + ("" if len(problems) == 1 else "s")
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"{source} is invalid ({count}):\n{lines}")


class DataError(AesearchError, ValueError):
    """Images that cannot be used: the file or name, what was expected and what was found."""


class DataMissingError(DataError, LookupError):
    """A data set that is neither on disk nor to be had from the network."""


class StoreError(AesearchError, RuntimeError):
    """A database that cannot be opened, is not ours, or does not answer."""


class TransientStoreError(StoreError):
    """A transaction that did not go through although nothing is wrong with it.

    Attributes
    ----------
    conflict : bool
        It met another transaction and may be repeated at once; otherwise the store is away.
    """

    def __init__(self, message: str, *, conflict: bool = False) -> None:
        self.conflict = conflict
        super().__init__(message)


class StudyMismatchError(AesearchError, ValueError):
    """A resume with another spec, data set or split than the study was created with."""


class StudyNotFoundError(AesearchError, LookupError):
    """No study of that name in the store."""


class RunFailedError(AesearchError, RuntimeError):
    """The run itself failed: no trial completed, a worker died again and again."""

    exit_code = 1


class ChoiceReopenedError(RunFailedError):
    """What was chosen is open again: trials were added meanwhile."""

    @classmethod
    def of(cls, study: str) -> "ChoiceReopenedError":
        """Make the error for a study."""
        return cls(
            f"study {study!r} must keep its choice until its winner is retrained, got more trials "
            "meanwhile; run the same command again"
        )
