"""A worker: takes leased work of one study until there is none; it decides nothing by itself.

What it does with a unit of work is a pure function of the study, so a worker may be killed,
paused or doubled at any moment.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from aesearch.artifacts import model_file
from aesearch.data.study_data import Problem, check_same_data, load_problem
from aesearch.device import DeviceLostError, present_device
from aesearch.evaluation.metrics import mean_squared_error
from aesearch.models.runtime import is_broken_device, prepare_process
from aesearch.sampling.suggest import Pruner, rungs
from aesearch.studies.errors import (
    AesearchError,
    ChoiceReopenedError,
    RunFailedError,
    StudyMismatchError,
    StudyNotFoundError,
)
from aesearch.studies.results.records import TrainedSeed
from aesearch.studies.results.selection import best_seed
from aesearch.studies.spec.model_size import LARGEST_WEIGHTS
from aesearch.studies.spec.resolved import ResolvedSpec, resolve
from aesearch.studies.store import ledger, retrain_results, search_results, study_rows
from aesearch.studies.store.ledger import ALL_KINDS, Lease, LeaseLostError
from aesearch.studies.store.search_results import Outcome
from aesearch.training.generation import train_generation
from aesearch.training.memory import images_for
from aesearch.training.out_of_fold import calibrate, needs_networks, out_of_fold_errors
from aesearch.training.retrain import retrain
from aesearch.training.rungs import Rung
from aesearch.versions import check_versions
from aesearch.workers.heartbeat import Heartbeat, StoppedError
from aesearch.workers.owners import worker_name
from aesearch.workers.schedule import (
    chosen_configuration,
    known_results,
    settle,
    suggest_ahead,
    suggest_up_to,
)

log = logging.getLogger("aesearch.worker")

POLL_S = 0.25
CHECKPOINT_S = 30.0
LARGEST_CHECKPOINT = LARGEST_WEIGHTS["postgresql"]
KINDS = {"search": ("search",), "retrain": ("retrain", "evaluate")}


class _TooEarlyError(Exception):
    """What the work waits for is held by nobody any more; it goes back."""


class Worker:
    """One process at work on one study.

    Parameters
    ----------
    name : str
        Study.
    kinds : tuple of str
        What it takes: ``search``, ``retrain``, ``evaluate``.
    devices : tuple of str, optional
        Which devices it may train on; None for all that are here.
    stop : threading.Event
        Set to make it give its work back and return.
    parent : int or None
        Process whose end is this worker's end too.
    problem : Problem, optional
        What the study trains on, where it is in memory; None to load it.

    Raises
    ------
    StudyNotFoundError, StudyMismatchError, DataError, StoreError
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        kinds: tuple[str, ...] = ALL_KINDS,
        devices: tuple[str, ...] | None = None,
        stop: threading.Event,
        parent: int | None = None,
        problem: Problem | None = None,
    ) -> None:
        self._engine = engine
        self._name = name
        self._kinds = kinds
        self._stop = stop
        self._parent = parent
        self._hopeless = False
        self._finished: dict[int, FrozenTrial] = {}
        # Errors for the p-values, and of which retraining's configuration they are.
        self._out_of_fold: tuple[str | None, np.ndarray | None] = None, None
        self._study = study_rows.find_study(engine, name)
        check_versions(self._study)
        spec = study_rows.stored_spec(self._study)
        device = present_device(spec)
        if devices is not None and device not in devices:
            raise StudyMismatchError(
                f"study {name!r} must be trained on {device}, where it was begun, "
                f"got a worker for {' and '.join(devices)}; start it with --device {device}"
            )
        assert isinstance(spec.compute.threads, int), "the stored spec is resolved"
        assert isinstance(spec.compute.population, int), "the stored spec is resolved"
        # Shrinks where the device's memory is too small.
        self._population = spec.compute.population
        # A GPU works by itself.
        self._idles = device != "cpu"
        prepare_process(spec.compute.threads)
        if problem is None:
            problem = load_problem(spec, device=device, facts=self._study.facts)
        self._problem = problem
        log.info("study %r: read %s", name, self._problem.read)
        check_same_data(self._problem, self._study.facts, name)
        try:
            self._images = images_for(self._problem, device)
        except RuntimeError as error:
            if is_broken_device(error):
                raise DeviceLostError.of(error) from error
            raise

    def run(self, *, exit_when_idle: bool = True) -> None:
        """Work until the study is finished or the stop is set.

        Parameters
        ----------
        exit_when_idle : bool
            False to wait for more trials after the end.

        Raises
        ------
        StudyNotFoundError
            The study was deleted or renamed.
        """
        while not self._stop.is_set():
            if self.step():
                continue
            if self.is_over() and exit_when_idle:
                return
            self._stop.wait(POLL_S)
            if self._parent is not None and os.getppid() != self._parent:
                return

    def step(self) -> bool:
        """Take one unit of work and do it.

        Returns
        -------
        bool
            False when there was nothing to take at this moment.
        """
        study = self._present()
        lease = self._claim(study, self._kinds)
        if lease is None and self._could_calibrate(study):
            lease = self._claim(study, ("evaluate",), beside_retraining=True)
        if lease is not None:
            self._hopeless = False
            self._do(lease)
        return lease is not None

    def _claim(
        self, study: study_rows.StudyRow, kinds: tuple[str, ...], *, beside_retraining: bool = False
    ) -> Lease | None:
        return ledger.claim(
            self._engine,
            study,
            owner=worker_name(os.getpid()),
            lookahead=int(study.spec["search"]["lookahead"]),
            kinds=kinds,
            beside_retraining=beside_retraining,
        )

    def _could_calibrate(self, study: study_rows.StudyRow) -> bool:
        """Whether the look at the test set has networks to train that wait for no retrained one."""
        return (
            "evaluate" in self._kinds
            and study.retrain_key not in {None, self._out_of_fold[0]}
            and needs_networks(self._problem)
        )

    def is_over(self) -> bool:
        """Choose the winner if the search is over; whether nothing of its kinds is left then."""
        study = self._present()
        if study.chosen_trial_id is None and not self._hopeless:
            try:
                settle(self._engine, self._name)
            except RunFailedError as error:
                # Whoever asked for the study is told by the run itself.
                log.error("study %r: %s", self._name, error)  # noqa: TRY400 - no bug, no trace
                self._hopeless = True
            study = self._present()
        if study.chosen_trial_id is None:
            return self._hopeless
        work = ledger.open_work(self._engine, study)
        # What is left of the search after a choice was cut off by a time limit.
        return not any(work[kind] for kind in self._kinds if kind != "search")

    def _present(self) -> study_rows.StudyRow:
        """Read the study again; a new one of the same name is another."""
        try:
            study = study_rows.find_study(self._engine, self._name)
        except StudyNotFoundError as error:
            raise StudyNotFoundError(
                f"study {self._name!r} is gone: it was deleted or renamed while this worker "
                f"served it ({error})"
            ) from error
        if not study.same(self._study):
            raise StudyNotFoundError(
                f"study {self._name!r} is gone: another one has its name now; "
                "start this worker again to serve that"
            )
        return study

    def _spec(self, study: study_rows.StudyRow) -> ResolvedSpec:
        # Settings that came after the study was made are resolved by the same rule as ever.
        spec = study_rows.stored_spec(study)
        return resolve(
            spec,
            image_shape=self._problem.image_shape,
            n_train=len(self._problem.images),
            device=spec.compute.device,
        )

    def _do(self, lease: Lease) -> None:
        # Read after the claim: the choice may have been made between a look and the claim.
        study = self._present()
        spec = self._spec(study)
        log.info(
            "study %r, %s %d: attempt %d", self._name, lease.kind, lease.position, lease.attempt
        )
        with Heartbeat(self._engine, lease, self._stop, self._parent) as beat:
            try:
                if lease.kind == "search":
                    self._search(lease, study, spec, beat)
                elif lease.kind == "retrain":
                    self._retrain(lease, study, spec, beat)
                else:
                    self._evaluate(lease, study, spec, beat)
            except LeaseLostError as error:
                log.warning("lease lost: %s", error)
            except ChoiceReopenedError as error:
                log.warning("%s", error)
                ledger.release(self._engine, lease)
            except (StoppedError, _TooEarlyError):
                ledger.release(self._engine, lease)
            except RunFailedError:
                # Whoever mends the cause must not wait for the lease of who gave up.
                ledger.release(self._engine, lease)
                raise
            except RuntimeError as error:
                if is_broken_device(error):
                    # The attempt counts: three of them are the work's fault, one is the device's.
                    raise DeviceLostError.of(error) from error
                raise

    # -------------------------------------------------------------------- search

    def _search(
        self, lease: Lease, study: study_rows.StudyRow, spec: ResolvedSpec, beat: Heartbeat
    ) -> None:
        if not suggest_up_to(self._engine, study, spec, lease.position, self._finished):
            log.info("study %r: the search ends before generation %d", self._name, lease.position)
            return
        if lease.attempt > ledger.MAX_ATTEMPTS:
            died = f"worker died {ledger.MAX_ATTEMPTS} times on this trial (out of memory?)"
            self._fail(lease, died)
            return
        if lease.repeated >= ledger.MAX_REPEATED:
            what = f"{lease.repeated} times after a rung, and none of them was new"
            self._fail(lease, f"workers died on this trial again and again: {what}")
            return
        trials, firsts = search_results.history(self._engine, study, self._finished)
        finished = known_results(spec, trials, firsts, lease.position)
        own = {number: trials[number] for number in lease.members}
        configurations = {n: spec.configuration(trial.params) for n, trial in own.items()}
        n_epochs = spec.trial_epochs * (spec.search.folds if spec.scores_delivery else 1)

        def on_epoch(epoch: int, n_members: int) -> None:
            beat.say(
                epoch=epoch,
                n_epochs=n_epochs,
                n_members=n_members,
                trials=list(lease.members),
            )
            beat.check()

        def on_rung(rung: Rung, done: bool) -> None:
            search_results.write_rung(
                self._engine,
                lease,
                curves=rung.curves,
                reports=rung.reports,
                outcomes=rung.outcomes,
                done=done,
            )

        try:
            with self._suggesting(study, spec, lease.position + 1):
                self._population = train_generation(
                    self._problem,
                    self._images,
                    configurations,
                    population=self._population,
                    rungs=rungs(spec),
                    pruner=lambda: Pruner(spec, finished, own),
                    on_epoch=on_epoch,
                    on_rung=on_rung,
                )
        except (AesearchError, LeaseLostError, StoppedError, SQLAlchemyError):
            raise  # the store, not the training: the generation is as good as before
        except (Exception, SystemExit) as error:
            if is_broken_device(error):
                raise
            log.exception("generation %d failed", lease.position)
            self._fail(lease, _in_one_line(error))

    @contextmanager
    def _suggesting(
        self, study: study_rows.StudyRow, spec: ResolvedSpec, position: int
    ) -> Iterator[None]:
        """Suggest a later generation meanwhile, where the training leaves this process idle."""
        if not self._idles:
            yield
            return
        arguments = (self._engine, study, spec, position)
        thread = threading.Thread(target=suggest_ahead, args=arguments, name="suggest", daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _fail(self, lease: Lease, reason: str) -> None:
        outcomes = [
            Outcome(number, TrialState.FAIL, user_attributes={"reason": reason})
            for number in lease.members
        ]
        search_results.write_rung(
            self._engine, lease, curves=[], reports={}, outcomes=outcomes, done=True
        )

    # ---------------------------------------------------------------- retraining

    def _retrain(
        self, lease: Lease, study: study_rows.StudyRow, spec: ResolvedSpec, beat: Heartbeat
    ) -> None:
        key = study.retrain_key
        if key is None:
            raise ChoiceReopenedError.of(study.name)
        if lease.attempt > ledger.MAX_ATTEMPTS:
            raise RunFailedError(
                f"the retraining of study {study.name!r} died {ledger.MAX_ATTEMPTS} times without "
                "progress (out of memory?); free memory and run the same command again"
            )
        # The spec's retraining part may have changed since this worker started; the data cannot.
        problem = replace(self._problem, spec=spec)

        def on_epoch(epoch: int, n_members: int) -> None:
            beat.say(
                epoch=epoch,
                n_epochs=spec.retrain.max_epochs,
                n_members=n_members,
                seeds=list(lease.members),
            )
            beat.check()

        saved, fits = time.monotonic(), True

        def save(make: Callable[[], bytes]) -> None:
            nonlocal saved, fits
            if not fits or time.monotonic() - saved < CHECKPOINT_S:
                return
            payload = make()
            fits = len(payload) <= LARGEST_CHECKPOINT
            if fits:
                retrain_results.write_checkpoint(self._engine, lease, key, payload)
            else:
                log.warning(
                    "study %r: its checkpoint is too large for a store (%d MB); a retraining that "
                    "is killed begins again",
                    study.name,
                    len(payload) // 10**6,
                )
            saved = time.monotonic()

        done = retrain(
            problem,
            self._images,
            chosen_configuration(self._engine, study, spec),
            lease.members,
            on_epoch=on_epoch,
            restore=lambda: retrain_results.read_checkpoint(self._engine, lease, key),
            save=save,
        )
        rows = [
            TrainedSeed(
                seed_index=item.seed_index,
                seed=item.seed,
                epochs=item.epochs,
                best_epoch=item.best_epoch,
                validation_loss=item.validation_loss,
                weights_sha256=item.weights_sha256,
                weights=model_file.to_bytes(item.model),
            )
            for item in done
        ]
        curves = {item.seed_index: item.curve for item in done}
        retrain_results.write_retrained(self._engine, lease, key, rows, curves)

    def _evaluate(
        self, lease: Lease, study: study_rows.StudyRow, spec: ResolvedSpec, beat: Heartbeat
    ) -> None:
        # Half a second, of scikit-learn, that only the worker that measures has to spend.
        from aesearch.evaluation.evaluate import evaluate  # noqa: PLC0415

        key = study.retrain_key
        if key is None:
            raise ChoiceReopenedError.of(study.name)
        problem = replace(self._problem, spec=spec)
        configuration = chosen_configuration(self._engine, study, spec)

        def out_of_fold() -> np.ndarray | None:
            if self._out_of_fold[0] != key:
                errors = out_of_fold_errors(problem, configuration, beat.check, self._images)
                self._out_of_fold = key, errors
            return self._out_of_fold[1]

        # A model that kills its evaluation each time still has its test error, and is exported.
        survives = lease.attempt <= ledger.MAX_ATTEMPTS
        if ledger.open_work(self._engine, study)["retrain"]:
            if survives:
                with self._costing_no_model():
                    out_of_fold()
            self._wait_for_retraining(study, beat)
        rows = retrain_results.retrained(self._engine, study)
        if len(rows) != lease.size:
            raise ChoiceReopenedError.of(study.name)
        mse = {
            row.seed_index: mean_squared_error(
                model_file.from_bytes(row.weights),
                self._problem.test_images,
                beat.check,
                inputs=self._problem.test_noisy,
            )
            for row in rows
        }
        found = None
        if survives:
            exported = best_seed(rows)
            with self._costing_no_model():
                model = model_file.from_bytes(exported.weights)
                evaluation = evaluate(
                    model,
                    problem,
                    seed_index=exported.seed_index,
                    calibration=calibrate(model, problem, configuration, beat.check, out_of_fold),
                    check=beat.check,
                )
                found = (evaluation.document, evaluation.pictures)
        retrain_results.write_test(self._engine, lease, key, mse, found)

    @contextmanager
    def _costing_no_model(self) -> Iterator[None]:
        """Log what goes wrong in an evaluation: whatever it is, the study has its model."""
        try:
            yield
        except (AesearchError, LeaseLostError, StoppedError, SQLAlchemyError):
            raise
        except Exception:
            log.exception("the evaluation of study %r failed", self._name)

    def _wait_for_retraining(self, study: study_rows.StudyRow, beat: Heartbeat) -> None:
        """Wait until others have retrained; _TooEarlyError where nobody holds what is left."""
        while ledger.open_work(self._engine, study)["retrain"]:
            beat.check()
            if ledger.claimable(self._engine, study, lookahead=1, kinds=("retrain",)):
                raise _TooEarlyError
            self._stop.wait(POLL_S)


def _in_one_line(error: BaseException) -> str:
    # A MemoryError says nothing but its name.
    said = str(error).strip().splitlines()
    return type(error).__name__ + (f": {said[0][:200]}" if said else "")
