"""Figures of the structure: how much there is, how it lies, what a command reads.

    python benchmarks/structure.py

Prints a Markdown table. Lines are those that a wheel holds (Python, css, html, js, yaml), counted
in the repository; transactions and statements are those of writing the run folder of a small
study.
"""

import ast
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("search", "models", "studies")
KINDS = (".py", ".css", ".html", ".js", ".yaml")
UNTYPED = ("dict[str, Any]", "Mapping[str, Any]")


def package_files(*kinds):
    """Every file of the package with one of these endings."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in kinds and "__pycache__" not in path.parts:
                yield path


def lines():
    """How many lines a wheel holds."""
    return sum(len(path.read_text().splitlines()) for path in package_files(*KINDS))


def widest_folder():
    """The folder with the most modules side by side, and how many those are."""
    count = Counter(path.parent for path in package_files(".py"))
    folder, n_files = count.most_common(1)[0]
    return f"{n_files} ({folder.relative_to(ROOT)})"


def functions():
    """Every function of the package with its file."""
    for path in package_files(".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def untyped_signatures():
    """How often a signature says no more than that names have values."""
    found = 0
    for _, node in functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        notes = [argument.annotation for argument in arguments] + [node.returns]
        words = " ".join(ast.unparse(note) for note in notes if note is not None)
        found += sum(words.count(untyped) for untyped in UNTYPED)
    return found


def inner_imports():
    """How many imports stand inside functions."""
    inside = set()
    for path, node in functions():
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                inside.add((path, inner.lineno))
    return len(inside)


def files_with(word):
    """How many files of the package name a setting."""
    return sum(word in path.read_text() for path in package_files(*KINDS))


def export_statements():
    """Transactions and statements of writing a run folder, once its store is open."""
    import sqlalchemy as sa

    import aesearch
    from aesearch.artifacts.run_folder import write_run_folder
    from aesearch.studies.store.study_rows import open_store

    settings = ["retrain.seeds=1", "evaluation.bootstrap=20", "data.limit=90"]
    with tempfile.TemporaryDirectory() as name:
        storage = str(Path(name) / "s.db")
        aesearch.search(
            set=settings, trials=2, epochs=1, storage=storage, out=Path(name) / "run", quiet=True
        )
        engine = open_store(storage)
        begun, asked = [], []
        sa.event.listen(engine, "begin", lambda _: begun.append(1))
        sa.event.listen(engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
        write_run_folder(engine, "digits", Path(name) / "again")
        engine.dispose()
    statements = [text for text in asked if not text.startswith("BEGIN")]
    return f"{len(begun)} / {len(statements)}"


def list_seconds(n_studies=30, n_trials=1000):
    """Wall seconds of ``aesearch list`` in this process, for a store of waiting trials."""
    import aesearch
    from aesearch.studies.spec.load import load_spec
    from aesearch.studies.spec.resolved import resolve
    from aesearch.studies.store.study_rows import create_study, open_store

    with tempfile.TemporaryDirectory() as name:
        storage = str(Path(name) / "s.db")
        engine = open_store(storage)
        spec = resolve(load_spec(), image_shape=(1, 8, 8), n_train=1438, device="cpu")
        for number in range(n_studies):
            create_study(
                engine,
                f"study-{number}",
                spec=spec,
                facts={"dataset": "digits"},
                n_trials=n_trials,
                generation_size=10,
                version="0",
            )
        engine.dispose()
        began = time.perf_counter()
        found = aesearch.list_studies(storage)
        ended = time.perf_counter()
    assert len(found) == n_studies
    return f"{ended - began:.2f} s"


def help_seconds():
    """Processor seconds of ``aesearch --help``."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "aesearch", "--help"], check=True, capture_output=True)
    after = os.times()
    used = after.children_user + after.children_system
    return f"{used - before.children_user - before.children_system:.2f} s"


def main():
    """Measure and print."""
    rows = {
        "lines in the wheel": lines(),
        "modules of one folder side by side": widest_folder(),
        "`dict[str, Any]` and `Mapping[str, Any]` in signatures": untyped_signatures(),
        "imports inside functions": inner_imports(),
        "files that name `learning_rate`": files_with("learning_rate"),
        "transactions / statements of a run folder": export_statements(),
        "`list` of 30 studies of 1,000 trials": list_seconds(),
        "`aesearch --help`, processor time": help_seconds(),
    }
    print("| what | figure |\n|---|---|")
    for what, figure in rows.items():
        print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
