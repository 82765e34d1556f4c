"""What a notebook shows: one output that is redrawn, and empty at the end."""

import pytest
from IPython import display as ipython_display
from rich.text import Text

from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.terminal import display, notebook
from aesearch.terminal.display import LiveDisplay, PlainDisplay, make_display
from aesearch.terminal.notebook import NotebookLive

LONG = " ".join(["a line that is longer than a terminal is wide"] * 3)


@pytest.fixture
def drawn(monkeypatch):
    """Stand in for a notebook: everything that its one output was made to show, in order."""
    shown = []

    class Handle:
        def update(self, data, *, raw):
            assert raw
            shown.append(data["text/html"])

    monkeypatch.setattr(display, "in_notebook", lambda: True)
    monkeypatch.setattr(notebook, "_EVERY_S", 0.0)
    monkeypatch.setattr(ipython_display, "display", lambda *_, **__: Handle())
    return shown


def test_a_study_is_drawn_in_place_and_messages_stay(drawn, capsys):
    """Bars in the output, lines in the cell, nothing on standard error."""
    with make_display(quiet=False) as shown:
        assert isinstance(shown, LiveDisplay)
        shown.update(StudySnapshot("digits", {}, 2, (TrialRecord(0, "waiting"),) * 2))
        shown.message(LONG)
    assert "study digits" in drawn[0]
    assert "0/2 trials" in drawn[0]
    assert drawn[-1] == ""
    assert capsys.readouterr() == (f"{LONG}\n", "")


def test_a_retraining_is_drawn_in_place(drawn, capsys):
    """A bar for the seeds that train together; gone at the end, without a line of its own."""
    with make_display(quiet=False) as shown:
        shown.epoch([0, 1, 2], 3, 20)
    assert "seeds 0-2" in drawn[-2]
    assert "3/20" in drawn[-2]
    assert drawn[-1] == ""
    assert capsys.readouterr() == ("", "")


def test_a_waiting_word_is_taken_back(drawn):
    """What is said while something is computed is not there any more when it is."""
    with NotebookLive(Text("Measuring")):
        assert "Measuring" in drawn[0]
    assert drawn[1:] == [""]


def test_quiet_shows_nothing_in_a_notebook_either(drawn):
    """No output is begun."""
    with make_display(quiet=True) as shown:
        shown.epoch([0], 1, 2)
    assert not drawn


def test_a_terminal_of_ipython_is_no_notebook(monkeypatch):
    """Where no kernel runs, the displays are those of a stream."""
    import IPython

    monkeypatch.setattr(IPython, "get_ipython", object)
    assert isinstance(make_display(quiet=False), PlainDisplay)
