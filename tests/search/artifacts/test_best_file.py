"""A best.yaml is read with every problem named, and a retraining is held against it honestly."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from patience import PATIENCE_S

from aesearch.artifacts.best_file import check_same_images, compare, load_best, load_trainable
from aesearch.studies.errors import SpecError, StudyMismatchError
from aesearch.studies.results.best_result import Result, best_yaml
from aesearch.studies.spec.load import to_yaml
from aesearch.studies.spec.study import StudySpec

WRITTEN = {
    "study": "digits",
    "trial": 2,
    "retrained": [
        {"seed_index": 0, "weights_sha256": "aa", "test_mse": 0.021},
        {"seed_index": 1, "weights_sha256": "bb", "test_mse": 0.020},
    ],
    "test": {"mse": 0.020, "seed_index": 1, "looks": 1},
    "data": {"fingerprint": "f" * 64, "split_sha256": "5" * 64},
    "versions": {"torch": "2.15.0", "numpy": "2.4.0"},
}


RESULT = Result.model_validate(WRITTEN)


def written(path, result=WRITTEN, spec_yaml=None):
    """Write a best.yaml."""
    text = best_yaml(spec_yaml or to_yaml(StudySpec(seed=7)), RESULT)
    document = {"result": result}
    path.write_text(text[: text.index("result:")] + yaml.safe_dump(document, sort_keys=False))
    return path


def test_a_best_file_gives_back_its_spec_and_its_result(tmp_path):
    """What was written is what is read."""
    assert load_best(written(tmp_path / "best.yaml")) == (StudySpec(seed=7), RESULT)


def test_a_plain_spec_can_be_trained_but_holds_no_number(tmp_path):
    """``train`` needs no result; ``verify`` says what is missing."""
    path = tmp_path / "study.yaml"
    path.write_text("seed: 7\n")
    assert load_trainable(path) == (StudySpec(seed=7), None)
    with pytest.raises(SpecError, match="this is a specification, not"):
        load_best(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"test": {"mse": "low", "seed_index": 1, "looks": 1}}, "result.test.mse: must be"),
        ({"test": {"mse": 0.02, "seed_index": 5, "looks": 1}}, "seed_index: must be one of"),
        ({"data": {"fingerprint": "f"}}, "result.data.split_sha256"),
        ({"versions": None}, "result.versions: must be"),
    ],
)
def test_a_damaged_result_is_named(change, problem, tmp_path):
    """The path inside the file is in the message, and the file's name."""
    path = written(tmp_path / "best.yaml", WRITTEN | change)
    with pytest.raises(SpecError, match=problem) as caught:
        load_best(path)
    assert caught.value.source == str(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- 1\n", "must be a mapping"),
        ("sead: 1\n", "did you mean 'seed'"),
        ("a: [", "must be YAML"),
    ],
)
def test_a_damaged_file_is_named(text, problem, tmp_path):
    """Problems of the specification are found as in any specification."""
    path = tmp_path / "best.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=problem):
        load_trainable(path)


def test_what_a_later_version_adds_is_no_problem(tmp_path):
    """Unknown keys in the result are kept, not refused."""
    path = written(tmp_path / "best.yaml", WRITTEN | {"ssim": 0.9})
    found = load_best(path)[1]
    assert found.ssim == 0.9
    assert yaml.safe_load(best_yaml("", found))["result"]["ssim"] == 0.9


@pytest.mark.parametrize(("key", "word"), [("fingerprint", "images"), ("split_sha256", "split")])
def test_other_images_are_refused(key, word):
    """Another fingerprint or split is refused by name; the same are not."""
    same = SimpleNamespace(name="digits", **WRITTEN["data"])
    check_same_images(same, RESULT.data, "best.yaml")
    setattr(same, key, "0" * 64)
    with pytest.raises(StudyMismatchError, match=f"{word} must be those of best.yaml"):
        check_same_images(same, RESULT.data, "best.yaml")


@pytest.mark.parametrize(
    ("mse", "sha256", "verdict", "text"),
    [
        (0.020, "bb", "identical", "identical: same weights, test MSE 0.02"),
        (0.020 * (1 + 1e-7), "bb", "identical", "identical: same weights"),
        # The same weights, but not the number that is written there.
        (0.0202, "bb", "agrees", "agrees within 1%: test MSE 0.0202, recorded 0.02"),
        (0.5, "bb", "differs", "differs by 2.4e+03%, more than 2%: test MSE 0.5, recorded 0.02"),
        (0.0202, "cc", "agrees", "agrees within 1%: test MSE 0.0202, recorded 0.02"),
        (0.0198, "aa", "agrees", "agrees within 1%: test MSE 0.0198, recorded 0.02"),
        (0.021, "cc", "differs", "differs by 5%, more than 2%: test MSE 0.021, recorded 0.02"),
        (float("nan"), "cc", "differs", "differs by nan%"),
    ],
)
def test_the_verdict(mse, sha256, verdict, text):
    """Weights first, then the number within the tolerance; nan never agrees."""
    comparison = compare(
        RESULT,
        mse=mse,
        sha256=sha256,
        tolerance=0.02,
        versions=RESULT["versions"],
        devices=("cpu", "cpu"),
    )
    assert comparison.verdict == verdict
    assert comparison.text().startswith(text)
    assert "recorded -> here" not in comparison.text()


def test_other_versions_and_devices_are_named():
    """What differs from the record is said beside the verdict."""
    comparison = compare(
        RESULT,
        mse=0.02,
        sha256="cc",
        tolerance=0.0,
        versions={"torch": "2.16.0", "numpy": "2.4.0"},
        devices=("cuda", "cpu"),
    )
    assert comparison.text().endswith(
        "recorded -> here: torch 2.15.0 -> 2.16.0, device cuda -> cpu"
    )
    assert comparison.verdict == "agrees"


def test_a_best_file_reads_the_same_in_any_yaml_reader(tmp_path):
    """PyYAML's own loader finds the same result."""
    path = written(tmp_path / "best.yaml")
    assert yaml.safe_load(path.read_text())["result"] == WRITTEN


IDLE = """
import os, time
from aesearch.training.pool_process import begin

parent, child = os.getpid(), os.fork()
if child == 0:
    begin(None, None, parent)
    time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""


def test_an_idle_process_of_a_killed_retraining_ends():
    """What waits for work of a process that was killed would wait for ever."""
    parent = subprocess.Popen([sys.executable, "-c", IDLE], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + PATIENCE_S
    while is_running(child):
        assert time.monotonic() < deadline, "it waits on"
        time.sleep(0.1)


def is_running(pid):
    """Whether a process is there and no zombie, whoever its parent is by now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
