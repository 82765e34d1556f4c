"""Every fault has a test: the table of ``docs/reliability.md`` names tests that are there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
TABLE = (TESTS.parent / "docs" / "reliability.md").read_text()
ROWS = {
    int(number): re.findall(r"`(\w+)::(\w+)`", tests)
    for number, tests in re.findall(r"^\| (\d+) \| [^|]+ \| (.+) \|$", TABLE, re.MULTILINE)
}


def test_all_faults_are_in_the_table():
    """Thirty-two, each once and in order."""
    assert list(ROWS) == list(range(1, 33))


@pytest.mark.parametrize("number", ROWS)
def test_a_fault_has_a_test_that_is_run(number):
    """At least one of its tests, all of which exist, is run without ``--slow`` too."""
    assert ROWS[number]
    ordinary = []
    for file, name in ROWS[number]:
        functions = {
            node.name: {ast.unparse(decorator) for decorator in node.decorator_list}
            for node in ast.parse(next(TESTS.rglob(f"{file}.py")).read_text()).body
            if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, f"{file} has no such test"
        if "pytest.mark.slow" not in functions[name]:
            ordinary.append(name)
    assert ordinary
