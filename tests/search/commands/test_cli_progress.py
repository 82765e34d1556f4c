"""Downloads, retrainings and images are told on stderr: sparse lines in a pipe, else bars."""

import io

import pytest
from rich.console import Console

from aesearch.studies.results.records import TrainedSeed
from aesearch.terminal.display import (
    LiveDisplay,
    NowAndThen,
    PlainDisplay,
    bars,
    download_text,
    make_display,
)

SEED = TrainedSeed(1, 77, 60, 41, 0.0123, "ab", 0.0125, weights=b"")


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (("a.gz", 2_500_000, 9_912_422), "a.gz: 2.5 of 9.9 MB"),
        (("a.gz", 2_500_000, None), "a.gz: 2.5 MB"),
    ],
)
def test_download_text(progress, text):
    """Megabytes, and the whole where it is known."""
    assert download_text(*progress) == text


def test_downloads_are_told_now_and_then():
    """The first and last moment of each file, and between only after the pause."""
    moments = iter([0.0, 1.0, 10.0, 11.0, 12.0, 13.0])
    sparse = NowAndThen(10.0, lambda: next(moments))
    parts = [("a", 0, 9), ("a", 1, 9), ("a", 2, 9), ("a", 9, 9), ("b", 1, None), ("b", 2, None)]
    told = [part for part in parts if sparse.is_due(*part)]
    assert told == [("a", 0, 9), ("a", 2, 9), ("a", 9, 9), ("b", 1, None)]


@pytest.mark.parametrize("total", [None, 0, 9_912_422])
def test_a_bar_is_drawn_for_every_size(total):
    """Unknown and empty sizes too."""
    console = Console(file=io.StringIO(), width=60, record=True)
    console.print(bars([("downloading", 0, total, download_text("a.gz", 0, total))]))
    shown = console.export_text()
    assert "downloading" in shown
    assert "a.gz: 0.0" in shown


def test_plain_lines_for_a_download():
    """What a log shows."""
    stream = io.StringIO()
    PlainDisplay(stream).download("a.gz", 0, 9_912_422)
    assert stream.getvalue() == "downloading a.gz: 0.0 of 9.9 MB\n"


def test_a_live_bar_for_a_download():
    """What a terminal shows, gone at the end."""
    stream = io.StringIO()
    with LiveDisplay(Console(file=stream, force_terminal=True, width=60)) as display:
        display.download("a.gz", 5_000_000, 9_912_422)
        assert "a.gz: 5.0 of 9.9 MB" in stream.getvalue()


def test_quiet_says_nothing(capsys):
    """Neither about downloads nor about seeds."""
    with make_display(quiet=True) as display:
        display.download("a.gz", 0, 1)
        display.epoch([1], 1, 2)
        display.finished(SEED)
        display.images(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_line_for_each_retrained_seed():
    """In a pipe: nothing per epoch."""
    stream = io.StringIO()
    with make_display(quiet=False, stream=stream) as display:
        display.epoch([0, 1], 3, 200)
        display.images(3, 200)
        display.finished(SEED)
    line = "seed 1: best epoch 41 of 60, validation MSE 0.0123, test MSE 0.0125\n"
    assert stream.getvalue() == line


def test_a_bar_for_the_seeds_that_train_together():
    """On a terminal."""
    stream = io.StringIO()
    with LiveDisplay(Console(file=stream, force_terminal=True, width=80)) as display:
        display.epoch([0, 1], 3, 200)
        display.finished(SEED)
    assert "seeds 0-1" in stream.getvalue()
    assert "3/200 epochs" in stream.getvalue()
    assert "seed 1: best epoch 41 of 60" in stream.getvalue()


def test_a_bar_for_the_images_of_a_model_in_use():
    """On a terminal, with the time left once it is known."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    moments = iter([0.0, 0.0, 2.0, 2.0])
    with LiveDisplay(console, clock=lambda: next(moments)) as display:
        display.images(100, 400)
        display.images(200, 400)
    assert "100/400, time left unknown" in stream.getvalue()
    assert "200/400, about 4 s left" in stream.getvalue()
