"""The command ``dashboard`` as a process, asked by programs and looked at in a real browser."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from forked_command import PROGRAM, ForkedCommand
from patience import PATIENCE_S
from typer.testing import CliRunner

from aesearch.cli import app
from aesearch.studies.dashboard.publishing import publish
from aesearch.studies.store import study_rows

NAME = "<img src=x onerror=document.title='hurt'> | ![p](x) *n* 日本"


class Dashboard:
    """A running server and what it said."""

    def __init__(self, *options):
        self.process = ForkedCommand(
            [*PROGRAM, "dashboard", "--port", "0", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = []
        for line in self.process.stderr:
            self.said.append(line)
            if "dashboard on http" in line:
                break
        assert self.said, "it said nothing"
        assert "dashboard on http" in self.said[-1], self.said
        self.url = re.search(r"http://\S+", self.said[-1])[0]
        self.base = "/".join(self.url.split("/")[:3])

    def ask(self, path, method="GET", body=None, **headers):
        """One request: (status, headers, body)."""
        request = urllib.request.Request(self.base + path, method=method, headers=headers)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def json(self, path):
        """The answer to a question that succeeds."""
        status, _, body = self.ask(path)
        assert status == 200, body
        return json.loads(body)

    def end(self, number):
        """End it by a signal: (exit code, the rest of what it said)."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, rest


@pytest.fixture
def start():
    """Start servers that end with the test."""
    running = []

    def begin(*options):
        running.append(Dashboard(*options))
        return running[-1]

    yield begin
    for dashboard in running:
        dashboard.process.kill()
        dashboard.process.communicate()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the one study is kept that every test gets a copy of."""
    return tmp_path_factory.mktemp("kept") / "s.db"


@pytest.fixture
def trained(kept, tmp_path, tiny_spec, create_study, work):
    """A finished study of seconds, to be changed freely: (path, engine)."""
    if not kept.exists():
        engine = create_study(kept, tiny_spec("search.pruner=none"))
        work(engine)
        engine.dispose()
    path = tmp_path / "s.db"
    shutil.copy(kept, path)
    engine = study_rows.open_store(str(path))
    yield path, engine
    engine.dispose()


def refused(*options):
    """Start a server that must not come up: (exit code, its message)."""
    done = CliRunner().invoke(app, ["dashboard", *map(str, options)])
    assert done.stdout == ""
    return done.exit_code, done.stderr


def test_it_shows_a_study_and_changes_nothing(trained, start, tmp_path):
    """Note, figures and files are served, the files also written to a folder; all is read-only."""
    path, _ = trained
    folder = tmp_path / "files"
    dashboard = start("--storage", path, "--study", "digits", "--artifact-dir", folder)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/dashboard/studies/1", dashboard.url)
    wait_for(lambda: dashboard.json("/api/studies/1")["note"]["body"])
    found = dashboard.json("/api/studies/1")
    assert "Winner: [trial" in found["note"]["body"]
    assert len(found["plotly_graph_objects"]) == 3
    wait_for(lambda: len(list(folder.iterdir())) >= 15)
    trial = found["trials"][0]
    assert len(trial["artifacts"]) == 3
    for meta in trial["artifacts"]:
        status, headers, body = dashboard.ask(f"/artifacts/1/1/{meta['artifact_id']}")
        assert (status, headers["Content-Type"]) == (200, meta["mimetype"])
        assert "sandbox" in headers["Content-Security-Policy"]
        assert (folder / meta["artifact_id"]).read_bytes() == body
    for method, asked, body in (
        ("DELETE", "/api/studies/1", {}),
        ("PUT", "/api/studies/1/note", {"version": 99, "body": "hurt"}),
        ("POST", "/api/studies", {"study_name": "new", "directions": ["minimize"]}),
    ):
        assert dashboard.ask(asked, method, body)[0] == 403
    assert dashboard.ask("/api/studies", Host="evil.example")[0] == 421
    assert dashboard.json("/api/studies/1")["note"] == found["note"]
    assert dashboard.end(signal.SIGTERM) == (0, "dashboard ended\n")


def wait_for(condition):
    """Wait until something holds; a server publishes every few seconds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.1)


def test_it_follows_a_running_study(tmp_path, tiny_spec, create_study, work, start):
    """What workers finish while it runs is shown without anybody's help."""
    path = tmp_path / "s.db"
    engine = create_study(path, tiny_spec("search.pruner=none", "search.trials=2"))
    dashboard = start("--storage", path)
    assert [t["note"]["body"] for t in dashboard.json("/api/studies/1")["trials"]] == ["", ""]
    work(engine)
    wait_for(lambda: "Winner:" in dashboard.json("/api/studies/1")["note"]["body"])
    assert all(trial["note"]["body"] for trial in dashboard.json("/api/studies/1")["trials"])


def test_writable_takes_changes_from_its_own_pages(trained, start, tmp_path):
    """A note is edited, a file uploaded, a study renamed with all its rows; not by other pages.

    Its models are nowhere else, so that it is not deleted by a click.
    """
    path, engine = trained
    dashboard = start("--storage", path, "--writable", "--artifact-dir", tmp_path / "files")
    wait_for(lambda: dashboard.json("/api/studies/1")["note"]["body"])
    version = dashboard.json("/api/studies/1")["note"]["version"] + 1
    edit = ("/api/studies/1/note", "PUT", {"version": version, "body": "mine"})
    assert dashboard.ask(*edit, Origin="http://evil.example")[0] == 403
    assert dashboard.ask(*edit, Origin=dashboard.base)[0] == 204
    assert dashboard.json("/api/studies/1")["note"]["body"] == "mine"
    file = {"file": "data:text/plain;base64,aGVsbG8=", "filename": "hello.txt"}
    status, _, body = dashboard.ask("/api/artifacts/1", "POST", file)
    assert status == 201
    artifact = json.loads(body)["artifact_id"]
    assert dashboard.ask(f"/artifacts/1/{artifact}")[2] == b"hello"
    status, _, body = dashboard.ask("/api/studies/1", "DELETE", {})
    assert (status, "aesearch delete STUDY" in body.decode()) == (403, True)
    before = study_rows.snapshot(engine, "digits")
    rename = ("/api/studies/1/rename", "POST", {"study_name": "renamed"})
    assert dashboard.ask(*rename)[0] == 201
    assert study_rows.study_names(engine) == ["renamed"]
    after = study_rows.snapshot(engine, "renamed")
    assert (after.trials, after.retrains) == (before.trials, before.retrains)
    # A process that is started in the background of a shell may have to ignore Ctrl-C.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ending = signal.SIGTERM if ignored else signal.SIGINT
    assert dashboard.end(ending) == (0, "dashboard ended\n")


def test_every_machine_only_on_request(trained, start):
    """Another address is served when it is named, and the missing password is said."""
    dashboard = start("--storage", trained[0], "--host", "0.0.0.0", "--allow-host", "lab.example")
    assert "there is no password" in dashboard.said[0]
    assert dashboard.ask("/api/studies", Host="lab.example:1234")[0] == 200
    assert dashboard.ask("/api/studies", Host="evil.example")[0] == 421


def test_a_port_that_is_taken(trained):
    """The port is named, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = refused("--storage", trained[0], "--port", port)
    assert code == 2
    assert message.startswith(f"error: port must be free, got {port}: another program")
    assert f"--port {port + 1}" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--storage", "absent.db"], "no such file"),
        (["--storage", "empty.db"], "must hold studies of aesearch"),
        (["--storage", "text.db"], "it is not an SQLite file"),
        (["--storage", "s.db", "--study", "other"], "got 'other'; there: 'digits'"),
        (["--storage", "s.db", "--host", "no.such.host.invalid"], "host must be an address"),
        (["--storage", "s.db", "--artifact-dir", "text.db"], "artifact-dir must be a folder"),
    ],
)
def test_what_it_cannot_serve(trained, monkeypatch, options, message):
    """One line that names the thing and the remedy, exit code 2; nothing is created."""
    monkeypatch.chdir(trained[0].parent)
    (trained[0].parent / "empty.db").write_bytes(b"")
    (trained[0].parent / "text.db").write_text("no database, but long enough to be one " * 20)
    code, said = refused(*options, "--port", "0")
    assert code == 2, said
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert not (trained[0].parent / "absent.db").exists()


def test_a_person_sees_note_curves_and_reconstructions(trained, start, visit):
    """In a browser: table and pictures of a trial, figures of the study, and no complaint."""
    path, _ = trained
    dashboard = start("--storage", path, "--study", "digits")
    wait_for(lambda: dashboard.json("/api/studies/1")["note"]["body"])
    seen = visit(f"{dashboard.base}/dashboard/studies/1/trials?numbers=0")
    seen.page.wait_for_selector("table >> text=mean")
    assert seen.page.locator("table tr").count() >= 5
    pictures = seen.page.locator("img")
    wait_for(lambda: pictures.count() >= 4)
    for i in range(pictures.count()):
        picture = pictures.nth(i)
        wait_for(lambda picture=picture: picture.evaluate("image => image.naturalWidth > 0"))
    seen.page.goto(f"{dashboard.base}/dashboard/studies/1")
    seen.page.wait_for_selector("text=What the encoding dimension buys")
    seen.page.wait_for_selector("text=loss by epoch, one line per fold")
    seen.page.goto(f"{dashboard.base}/dashboard/studies/1/note")
    seen.page.get_by_role("link", name=re.compile("trial \\d")).first.click()
    seen.page.wait_for_selector("text=Best Trial")
    assert seen.problems == []
    assert seen.strange_requests == []


def test_a_hostile_name_is_a_name(tmp_path, tiny_spec, create_study, work, start, visit):
    """Markup in a study's name is shown, not run; its page, note and CSV are there."""
    path = tmp_path / "s.db"
    spec = tiny_spec("search.trials=2", "search.pruner=none").model_copy(update={"name": NAME})
    engine = create_study(path, spec)
    work(engine, NAME)
    publish(engine, NAME)
    dashboard = start("--storage", path)
    assert dashboard.json("/api/studies/1")["name"] == NAME
    assert dashboard.ask("/csv/1")[0] == 200
    seen = visit(f"{dashboard.base}/dashboard/studies/1/note")
    seen.page.wait_for_selector("text=Winner:")
    seen.page.goto(f"{dashboard.base}/dashboard/studies/1")
    seen.page.wait_for_selector("text=onerror=document.title")
    assert seen.page.title() != "hurt"
    assert seen.page.locator("img[src=x]").count() == 0
    assert seen.problems == []


def test_the_stock_dashboard_shows_the_same(trained, tmp_path):
    """``optuna-dashboard URL --artifact-dir DIR`` serves the notes and the very same files."""
    path, engine = trained
    folder = tmp_path / "files"
    publish(engine, "digits", folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    process = subprocess.Popen(
        [program, f"sqlite:///{path}", "--artifact-dir", folder, "--port", str(port)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(port))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies/1") as answer:
            found = json.loads(answer.read())
        assert "Winner:" in found["note"]["body"]
        trial = found["trials"][0]
        assert trial["note"]["body"].startswith("**0.")
        artifact = trial["artifacts"][2]["artifact_id"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/artifacts/1/1/{artifact}") as answer:
            assert answer.read() == (folder / artifact).read_bytes()
    finally:
        process.kill()
        process.wait()


def answers(port):
    """Whether something listens."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
