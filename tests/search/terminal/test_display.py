"""The displays show what a snapshot says, literally, within the width they have."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from aesearch.studies.results.records import LeaseRecord, RetrainRecord, StudySnapshot, TrialRecord
from aesearch.terminal.display import (
    LiveDisplay,
    Pace,
    PlainDisplay,
    duration_text,
    make_display,
    study_view,
)


def trial(number: int, value: float, **changes) -> TrialRecord:
    record = TrialRecord(
        number,
        "complete",
        params={"encoding_dim": 32, "learning_rate": 0.0012},
        value=value,
        standard_error=0.00012,
        fold_scores=(value, value),
    )
    return replace(record, **changes)


def lease(kind: str, index: int = 0, **changes) -> LeaseRecord:
    return replace(LeaseRecord(kind, index, done=False, owner="host:1"), **changes)


EMPTY = StudySnapshot("pens", {}, 50, tuple(TrialRecord(n, "waiting") for n in range(50)))
BUSY = replace(
    EMPTY,
    trials=(*(trial(n, 0.012 + n * 1e-4) for n in range(7)), TrialRecord(7, "failed")),
    leases=(
        lease("search", 3, progress={"epoch": 7, "n_epochs": 20, "trials": [24, 25, 26]}),
        lease("search", 4, progress={"epoch": 1, "n_epochs": 20, "trials": [27, 29]}),
        lease("search", 5, owner=None),
        lease("search", 6, done=True),
        lease("search", 8),
        lease("retrain", progress={"epoch": 70, "n_epochs": 200, "seeds": [0, 1, 2]}),
        lease("evaluate"),
    ),
    retrains=(RetrainRecord(0, 77, 60, 41, 0.011, "abc"),),
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def drawn(snapshot: StudySnapshot, seconds_left: float | None = None, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, record=True, color_system=None)
    console.print(study_view(snapshot, seconds_left))
    return console.export_text()


@pytest.mark.parametrize(
    "part",
    [
        "study pens",
        "8/50 trials",
        "1 failed, about 10 min left",
        "generation 3: trials 24-26",
        "7/20 epochs",
        "generation 4: trials 27, 29",
        "starting",
        "retraining: seeds 0-2",
        "70/200 epochs",
        "test set",
        "seed 0 retrained: best epoch 41 of 60, validation MSE 0.011",
        "0  0.01200 ± 0.00012  encoding_dim=32 learning_rate=0.0012",
        "4  0.01240 ± 0.00012  encoding_dim=32 learning_rate=0.0012",
    ],
)
def test_view_shows(part):
    assert part in drawn(BUSY, 600.0)


@pytest.mark.parametrize("part", ["generation 5", "generation 6", "0.01250 ±"])
def test_view_leaves_out_free_and_done_units_and_the_sixth_best_trial(part):
    assert part not in drawn(BUSY, 600.0)


def test_view_of_a_study_that_has_not_begun():
    text = drawn(EMPTY)
    assert "0/50 trials" in text
    assert "time left unknown" in text
    assert "no trial has completed yet" in text


def test_view_of_many_units_counts_those_without_a_bar():
    crowd = replace(EMPTY, leases=tuple(lease("search", n) for n in range(11)))
    assert "and 3 more at work" in drawn(crowd)
    assert "generation 8" not in drawn(crowd)


@pytest.mark.parametrize("width", [40, 80])
def test_long_names_push_no_count_off_the_terminal(width):
    wide = replace(
        BUSY, name="n" * 200, trials=(trial(0, 0.01, params={"architecture": "x" * 300}),)
    )
    lines = drawn(wide, 1e6, width).splitlines()
    assert lines[0].startswith("study nnn")
    assert lines[0].rstrip().endswith("1/50 trials")
    assert lines[1].rstrip().endswith("7/20 epochs")
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("text", ["[red]x", "[/]", "[link=http://a]b"])
def test_view_shows_markup_and_control_characters_literally(text):
    hostile = replace(
        EMPTY, name=text, trials=(trial(0, 0.01, params={"hidden": text + "\x1b[2J"}),)
    )
    assert f"study {text}" in drawn(hostile)
    assert f"hidden={text}\\x1b[2J" in drawn(hostile)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "time left unknown"),
        (0.0, "about 1 s left"),
        (89.0, "about 89 s left"),
        (600.0, "about 10 min left"),
        (9000.0, "about 2.5 h left"),
    ],
)
def test_duration_is_rounded_to_what_an_estimate_deserves(seconds, text):
    assert duration_text(seconds) == text


def test_pace_ignores_the_trials_of_an_earlier_run():
    pace = Pace()
    assert pace.seconds_left(20, 50, now=100.0) is None
    assert pace.seconds_left(20, 50, now=109.0) is None
    assert pace.seconds_left(25, 50, now=110.0) == pytest.approx(50.0)


def test_pace_counts_down_between_generations_but_not_below_zero():
    pace = Pace()
    pace.seconds_left(0, 20, now=0.0)
    pace.seconds_left(10, 20, now=10.0)
    assert pace.seconds_left(10, 20, now=14.0) == pytest.approx(6.0)
    assert pace.seconds_left(10, 20, now=99.0) == 0.0


def test_pace_of_a_finished_study_is_zero():
    assert Pace().seconds_left(50, 50, now=1.0) == 0.0


def plain_lines(*snapshots: StudySnapshot) -> list[str]:
    stream = io.StringIO()
    with PlainDisplay(stream) as display:
        for snapshot in snapshots:
            display.update(snapshot)
    return stream.getvalue().splitlines()


def test_plain_display_prints_each_finished_trial_once():
    one = replace(EMPTY, trials=(trial(0, 0.012),))
    two = replace(EMPTY, trials=(trial(0, 0.012), trial(1, 0.011)))
    params = "encoding_dim=32 learning_rate=0.0012"
    assert plain_lines(EMPTY, one, one, two) == [
        f"1/50 trial 0 complete 0.01200 ± 0.00012 {params} (best 0.01200, trial 0)",
        f"2/50 trial 1 complete 0.01100 ± 0.00012 {params} (best 0.01100, trial 1)",
    ]


@pytest.mark.parametrize(
    ("finished", "line"),
    [
        (
            TrialRecord(2, "failed", reason="loss nan\nat epoch 3"),
            "1/50 trial 2 failed: loss nan at epoch 3 (no best yet)",
        ),
        (
            TrialRecord(2, "pruned", value=0.05, reason="worse than the median"),
            "1/50 trial 2 pruned 0.05: worse than the median (no best yet)",
        ),
        (
            TrialRecord(2, "pruned", value=0.05, reason="pruned at epoch 1 with a mean of 0.05"),
            "1/50 trial 2 pruned: at epoch 1 with a mean of 0.05 (no best yet)",
        ),
        (
            trial(2, 0.2, params={}, unstable="ends at 0.2"),
            "1/50 trial 2 unstable 0.20000 ± 0.00012: ends at 0.2 (no best yet)",
        ),
    ],
    ids=["failed", "pruned", "pruned at a rung", "unstable"],
)
def test_plain_display_gives_the_reason_of_a_trial_that_cannot_win(finished, line):
    assert plain_lines(EMPTY, replace(EMPTY, trials=(finished,))) == [line]


def test_plain_display_of_a_resumed_study_sums_up_what_was_there():
    assert plain_lines(BUSY)[0] == (
        "resumed: 8 of 50 trials are already finished (best 0.01200, trial 0)"
    )


def test_plain_display_tells_the_steps_of_the_retraining_once():
    waiting = replace(EMPTY, leases=(lease("retrain", owner=None),))
    started = replace(EMPTY, chosen=7, leases=(lease("retrain"),))
    seeded = replace(started, retrains=BUSY.retrains)
    tested = replace(seeded, leases=(), retrains=(replace(BUSY.retrains[0], test_mse=0.0123),))
    assert plain_lines(waiting, started, started, seeded, seeded, tested, tested) == [
        "retraining trial 7",
        "seed 0 retrained: best epoch 41 of 60, validation MSE 0.011",
        "test MSE 0.0123 (seed 0)",
    ]


def test_plain_display_of_a_finished_study_repeats_no_seed():
    done = (lease("retrain", done=True),)
    tested = replace(BUSY, leases=done, retrains=(replace(BUSY.retrains[0], test_mse=0.0123),))
    assert len(plain_lines(tested, tested)) == 1


def test_plain_message_is_one_literal_line():
    stream = io.StringIO()
    PlainDisplay(stream).message("[red]lease\nlost\x1b[2J")
    assert stream.getvalue() == "[red]lease lost\\x1b[2J\n"


def test_live_display_draws_messages_and_bars_and_leaves_stdout_alone(capsys):
    console = Console(file=Terminal(), width=80, force_terminal=True, color_system=None)
    times = iter([0.0, 60.0])
    with LiveDisplay(console, clock=lambda: next(times)) as display:
        display.update(EMPTY)
        display.message("[red]lease lost")
        display.update(BUSY)
        sys.stdout.write("result\n")
    text = console.file.getvalue()
    assert "[red]lease lost" in text
    assert "8/50 trials" in text
    assert "1 failed, about 5 min left" in text
    assert capsys.readouterr().out == "result\n"


def test_quiet_display_shows_nothing(capsys):
    with make_display(quiet=True) as display:
        display.update(BUSY)
        display.message("lease lost")
    assert capsys.readouterr() == ("", "")


def test_display_on_a_pipe_is_plain():
    assert isinstance(make_display(quiet=False, stream=io.StringIO()), PlainDisplay)


def test_display_goes_to_stderr_unless_told_otherwise(capsys):
    make_display(quiet=False).message("lease lost")
    assert capsys.readouterr() == ("", "lease lost\n")


@pytest.mark.parametrize(("term", "kind"), [("xterm", LiveDisplay), ("dumb", PlainDisplay)])
def test_display_on_a_terminal_is_live_where_the_cursor_can_move(monkeypatch, term, kind):
    monkeypatch.setenv("TERM", term)
    assert isinstance(make_display(quiet=False, stream=Terminal()), kind)


def test_import_pays_neither_torch_nor_scipy():
    code = "import sys, aesearch.terminal.display as _; "
    code += "print(*{'torch', 'scipy', 'optuna'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
