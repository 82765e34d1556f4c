"""Which devices are here, and what that means for a study or a worker; torch is asked, not used."""

from aesearch.models.runtime import pick_device, present_kinds
from aesearch.studies.errors import AesearchError, SpecError
from aesearch.studies.spec.study import StudySpec


class DeviceLostError(AesearchError, RuntimeError):
    """A GPU failed this process for good; another process may use it, or another GPU."""

    exit_code = 3  # neither refused (2) nor failed (1): whoever keeps workers starts another

    @classmethod
    def of(cls, error: BaseException) -> "DeviceLostError":
        """Say what the device said."""
        said = (str(error).strip().splitlines() or [""])[0][:200]
        return cls(
            f"the GPU failed ({type(error).__name__}: {said}); a new process goes on with the same "
            "work"
        )


def present_device(spec: StudySpec) -> str:
    """Decide where a specification trains on this machine: ``cpu``, ``cuda`` or ``mps``.

    Raises
    ------
    SpecError
        It asks for a device that is not here.
    """
    try:
        return pick_device(spec.compute.device)
    except ValueError as error:
        raise SpecError("study", [f"compute.device: {error}"]) from error


def planned_device(spec: StudySpec) -> str:
    """Decide where a study trains whose workers are elsewhere: as asked, whatever is here.

    Raises
    ------
    SpecError
        Never for a device that was named.
    """
    return present_device(spec) if spec.compute.device == "auto" else spec.compute.device


def served_devices(asked: str) -> tuple[str, ...]:
    """Devices whose studies a worker takes, the first before the others.

    Parameters
    ----------
    asked : str
        ``cpu``, ``cuda`` or ``mps`` for those studies alone, ``auto`` for all that can train here.

    Raises
    ------
    AesearchError
        Another word, or a device that is not here.
    """
    if asked not in ("auto", "cpu", "cuda", "mps"):
        raise AesearchError(f"device must be auto, cpu, cuda or mps, got {asked!r}")
    if asked == "auto":
        return present_kinds()
    try:
        return (pick_device(asked),)
    except ValueError as error:
        raise AesearchError(str(error)) from error
