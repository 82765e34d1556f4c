"""``aesearch report`` on a real, small study: fresh, finished, and where it must refuse."""

import pytest
from typer.testing import CliRunner

from aesearch.artifacts.run_folder import write_run_folder
from aesearch.cli import app
from aesearch.studies.report.stored import report_of
from aesearch.studies.store.contents import read_contents


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["report", *arguments])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Be in an empty folder, where no store is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AESEARCH_STORAGE", raising=False)
    return tmp_path


def test_a_study_has_a_report_from_the_first_moment_to_the_last(
    folder, tiny_spec, create_study, work, monkeypatch
):
    """Before any trial the page says so; the finished one is that of the run folder, byte for byte.

    The page of the run folder is made anew; a file that was named is replaced with --force only.
    """
    engine = create_study(folder / "aesearch.db", tiny_spec())
    done = invoke("digits")
    assert done.exit_code == 0, done.output
    page = folder / "runs" / "digits" / "report.html"
    assert done.stdout.strip() == str(page.relative_to(folder))
    first = page.read_bytes()
    assert b"In mid-search: 0 of 5 trials finished" in first

    work(engine)
    named = ("digits", "--out", str(page))
    refused = invoke(*named)
    assert refused.exit_code == 2
    assert "replace it with --force" in refused.stderr
    assert page.read_bytes() == first
    assert invoke(*named, "--force").exit_code == 0
    again = page.read_bytes()
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    assert invoke("digits", "--open").exit_code == 0
    assert opened == [page.as_uri()]
    assert page.read_bytes() == again
    assert b"Finished: 5 trials" in page.read_bytes()
    assert b"The winner is <strong>trial" in page.read_bytes()
    assert b"data:image/png;base64," in page.read_bytes()
    write_run_folder(engine, "digits", folder / "out")
    assert (folder / "out" / "report.html").read_bytes() == page.read_bytes()
    contents = read_contents(engine, "digits", curves=True, pictures=True)
    assert report_of(contents).encode() == page.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["other"], "got 'other'; there: 'digits'"),
        (["digits", "--out", "."], "out must be a file"),
        (["digits", "--storage", "absent.db"], "no such file"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(folder, tiny_spec, create_study, arguments, part):
    """An unknown study, a folder for a file, an absent store: exit 2, and nothing is made."""
    create_study(folder / "aesearch.db", tiny_spec())
    before = sorted(folder.iterdir())
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(folder.iterdir()) == before
