"""A worker of every unfinished study in a store: which one is served next, and which are not."""

import logging
import os
import threading
import time
from dataclasses import dataclass

from sqlalchemy.engine import Engine

from aesearch.device import DeviceLostError
from aesearch.models.runtime import is_broken_device
from aesearch.studies.errors import AesearchError, RunFailedError, StoreError
from aesearch.studies.store import ledger, study_rows
from aesearch.studies.store.ledger import ALL_KINDS
from aesearch.studies.store.study_rows import StudyRow
from aesearch.workers.schedule import settle
from aesearch.workers.worker import POLL_S, Worker

log = logging.getLogger("aesearch.worker")

_LONGEST_POLL_S = 2.0
_LOOK_AGAIN_S = 30.0
_LONGEST_LOOK_AGAIN_S = 600.0

Key = tuple[int, float, str]


@dataclass
class _Aside:
    """A study that cannot be served here, and when to try again."""

    reason: str
    again: float
    delay: float
    failed: bool  # rather than being another device's work


class Service:
    """One process that serves studies in order of creation, for as long as it is let.

    On a machine with a GPU, studies that train on it come first, since nobody else can do
    them: their retraining never waits for a machine that works on a CPU's study. The images of
    at most one study are held.

    Parameters
    ----------
    kinds : tuple of str
        What it takes: ``search``, ``retrain``, ``evaluate``.
    devices : tuple of str
        Which studies it takes by the device that they train on; the first come first.
    stop : threading.Event
        Set to make it give its work back and return.
    parent : int or None
        Process whose end is this one's end too.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        kinds: tuple[str, ...] = ALL_KINDS,
        devices: tuple[str, ...],
        stop: threading.Event,
        parent: int | None = None,
    ) -> None:
        self._engine = engine
        self._kinds = kinds
        self._devices = devices
        self._stop = stop
        self._parent = parent
        self._worker: tuple[Key, Worker] | None = None
        self._aside: dict[Key, _Aside] = {}
        self._without_winner: set[Key] = set()

    def run(self, *, exit_when_idle: bool = False) -> None:
        """Work until the stop is set, or until nothing is left that it could ever do.

        Raises
        ------
        StoreError
            The store cannot be used; a study that cannot be is left aside instead.
        DeviceLostError
            A GPU failed this process for good.
        RunFailedError
            With ``exit_when_idle``: a study is left aside for an error.
        """
        poll = POLL_S
        waiting = False
        while not self._stop.is_set():
            studies = study_rows.unfinished_studies(self._engine)
            self._forget_gone(studies)
            if self._serve_one(studies):
                poll, waiting = POLL_S, False
                continue
            if exit_when_idle and not any(self._has_left(study) for study in studies):
                self._tell_failures(studies)
                return
            if not waiting:
                waiting = True
                log.info("nothing to do at this moment: waiting for work")
            self._stop.wait(poll)
            poll = min(2 * poll, _LONGEST_POLL_S)
            if self._parent is not None and os.getppid() != self._parent:
                return

    def _forget_gone(self, studies: list[StudyRow]) -> None:
        keys = {_key(study) for study in studies}
        self._aside = {key: aside for key, aside in self._aside.items() if key in keys}
        self._without_winner &= keys
        if self._worker is not None and self._worker[0] not in keys:
            self._worker = None

    def _serve_one(self, studies: list[StudyRow]) -> bool:
        """Do one unit of work of the first study that has one for this worker."""
        for study in self._in_order(studies):
            if self._stop.is_set():
                return False
            aside = self._aside.get(_key(study))
            if aside is not None and time.monotonic() < aside.again:
                continue
            try:
                if self._one_unit(study):
                    return True
            except (StoreError, DeviceLostError):
                raise
            except AesearchError as error:
                self._leave_aside(study, " ".join(str(error).split()))
            except Exception as error:  # a bug in one study must not end the service of the others
                if is_broken_device(error):  # met before any work: when the images go there
                    raise DeviceLostError.of(error) from error
                log.exception("study %r", study.name)
                self._leave_aside(study, f"{type(error).__name__}: {error}")
        return False

    def _in_order(self, studies: list[StudyRow]) -> list[StudyRow]:
        return sorted(studies, key=self._rank)  # stable: in order of creation otherwise

    def _rank(self, study: StudyRow) -> int:
        device = _device(study)
        return self._devices.index(device) if device in self._devices else len(self._devices)

    def _one_unit(self, study: StudyRow) -> bool:
        key = _key(study)
        if _device(study) not in self._devices:
            self._leave_aside(
                study,
                f"it trains on {_device(study)}, and this worker serves "
                + " and ".join(self._devices),
                failed=False,
            )
            return False
        lookahead = int(study.spec["search"]["lookahead"])
        if not ledger.claimable(self._engine, study, lookahead=lookahead, kinds=self._kinds):
            return self._choose(study)
        self._without_winner.discard(key)
        if self._worker is None or self._worker[0] != key:
            self._worker = None  # before the next images are loaded
            log.info("study %r: loading its images", study.name)
            worker = Worker(
                self._engine, study.name, kinds=self._kinds, stop=self._stop, parent=self._parent
            )
            self._worker = (key, worker)
        worked = self._worker[1].step()
        if self._aside.pop(key, None) is not None:
            log.info("study %r is served again", study.name)
        return worked

    def _choose(self, study: StudyRow) -> bool:
        """Choose the winner if the search is over; whether that made new work."""
        key = _key(study)
        if study.chosen_trial_id is not None or key in self._without_winner:
            return False
        try:
            return settle(self._engine, study.name)
        except RunFailedError as error:
            log.error("study %r: %s", study.name, error)  # noqa: TRY400 - no bug, no trace
            self._without_winner.add(key)
            return False

    def _has_left(self, study: StudyRow) -> bool:
        """Whether this worker could ever do anything more for a study."""
        key = _key(study)
        if key in self._aside or key in self._without_winner:
            return False
        if study.chosen_trial_id is None:
            return True
        work = ledger.open_work(self._engine, study)
        return any(work[kind] for kind in self._kinds if kind != "search")

    def _tell_failures(self, studies: list[StudyRow]) -> None:
        # Who waits for this process, a batch system say, must see that work is left.
        asides = [(study.name, self._aside.get(_key(study))) for study in studies]
        failures = [
            f"{name!r} ({aside.reason})" for name, aside in asides if aside and aside.failed
        ]
        if failures:
            raise RunFailedError(f"not finished: study {', study '.join(failures)}")

    def _leave_aside(self, study: StudyRow, reason: str, *, failed: bool = True) -> None:
        key = _key(study)
        before = self._aside.get(key)
        if before is None or before.reason != reason:
            log.warning("study %r is left aside: %s", study.name, reason)
        delay = _LOOK_AGAIN_S if before is None else min(2 * before.delay, _LONGEST_LOOK_AGAIN_S)
        self._aside[key] = _Aside(reason, time.monotonic() + delay, delay, failed)
        if self._worker is not None and self._worker[0] == key:
            self._worker = None


def _key(study: StudyRow) -> Key:
    # The id may be given again, the name may change hands or be changed.
    return study.study_id, study.created, study.name


def _device(study: StudyRow) -> str:
    return str(study.spec["compute"]["device"])
