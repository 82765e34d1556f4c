"""Bad specifications: each error names the key, the rule, the value and the line, all at once."""

# ruff: noqa: E501 - one case a line reads as the table it is

import pytest

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.load import load_spec, spec_from_mapping


def problems(text=None, **layers):
    with pytest.raises(SpecError) as caught:
        load_spec(text=text, **layers)
    return caught.value.problems


HIDDEN_RULE = "must be widths >= 1 such as 256-128, [256, 128] or none"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # Unknown keys.
        ("search: {trails: 3}", "search.trails: unknown key; did you mean 'trials'? (line 1)"),
        ("\nserch: {}", "serch: unknown key; did you mean 'search'? (line 2)"),
        ("folds: 3", "folds: unknown key; did you mean 'search.folds'? (line 1)"),
        ("lerning_rate: 1", "lerning_rate: unknown key; did you mean 'training.learning_rate'? (line 1)"),
        ("retrain: {xyz: 1}", "retrain.xyz: unknown key; known here: seeds, max_epochs, patience, min_delta, min_delta_mode, holdout (line 1)"),
        ("space: {learning_rat: null}", "space.learning_rat: unknown key; did you mean 'learning_rate'? (line 1)"),
        ("space: {dropout: {low: 0, hihg: 0.5, high: 0.5}}", "space.dropout.hihg: unknown key; did you mean 'high'? (line 1)"),
        ("space: {dropout: {low: 0, choices: [0]}}", "space.dropout.low: must not be given beside choices (line 1)"),
        ("space:\n  momentum: {choices: [1]}", "space.momentum: must not be searched; set training.momentum (line 2)"),
        ("space: {dropout: {choices: [0], when: {architecture: dense, architektur: x}}}", "space.dropout.when.architektur: unknown key; did you mean 'architecture'? (line 1)"),
        # Wrong types: nothing is converted silently.
        ("search: {folds: '3'}", "search.folds: must be a whole number, got '3' (line 1)"),
        ("search: {folds: 3.0}", "search.folds: must be a whole number, got 3.0 (line 1)"),
        ("search: {folds: true}", "search.folds: must be a whole number, got True (line 1)"),
        ("search: {folds: null}", "search.folds: must be a whole number, got None (line 1)"),
        ("training: {learning_rate: fast}", "training.learning_rate: must be a number, got 'fast' (line 1)"),
        ("training: {learning_rate: true}", "training.learning_rate: must be a number, got True (line 1)"),
        ("training: {optimizer: lion}", "training.optimizer: must be adam, adamw or sgd, got 'lion' (line 1)"),
        ("training: {batch_size: 0}", "training.batch_size: must be a whole number >= 1 or auto, got 0 (line 1)"),
        ("training: {batch_size: 1.5}", "training.batch_size: must be a whole number >= 1 or auto, got 1.5 (line 1)"),
        ("name: 5", "name: must be text, got 5 (line 1)"),
        ('name: "a\\0b"', "name: must be printable text on one line, got 'a\\x00b' (line 1)"),
        ("search: 4", "search: must be a mapping of keys to values, got 4 (line 1)"),
        ("search: [1]", "search: must be a mapping of keys to values, got [1] (line 1)"),
        ("space: {dropout: 5}", "space.dropout: must be {low, high} or {choices} or null, got 5 (line 1)"),
        ("space: {dropout: {choices: 5}}", "space.dropout.choices: must be a list, got 5 (line 1)"),
        ("space: {defaults: maybe}", "space.defaults: must be true or false, got 'maybe' (line 1)"),
        ("model: {dense: {hidden: wide}}", f"model.dense.hidden: {HIDDEN_RULE}, or auto, got 'wide' (line 1)"),
        ("model: {conv: {channels: [1, 2]}}", "model.conv.channels: must be a list of length >= 3, got [1, 2] (line 1)"),
        # Out of range.
        ("seed: -1", "seed: must be >= 0, got -1 (line 1)"),
        ("seed: 4294967296", "seed: must be <= 4294967295, got 4294967296 (line 1)"),
        ("search: {folds: 1}", "search.folds: must be >= 2, got 1 (line 1)"),
        ("search: {trials: 0}", "search.trials: must be >= 1, got 0 (line 1)"),
        ("search: {timeout: 0}", "search.timeout: must be > 0, got 0 (line 1)"),
        ("data: {test_fraction: 1}", "data.test_fraction: must be < 1, got 1 (line 1)"),
        ("data: {limit: 19}", "data.limit: must be >= 20, got 19 (line 1)"),
        ("training: {learning_rate: 0}", "training.learning_rate: must be > 0, got 0 (line 1)"),
        ("training: {learning_rate: .inf}", "training.learning_rate: must be finite, got inf (line 1)"),
        ("model: {dropout: .nan}", "model.dropout: must be finite, got nan (line 1)"),
        ("model: {encoding_dim: 0}", "model.encoding_dim: must be >= 1, got 0 (line 1)"),
        # Dimensions.
        ("space:\n  dropout: {low: 0.5, high: 0.1}", "space.dropout.low: must be <= high (0.1), got 0.5 (line 2)"),
        ("space: {weight_decay: {low: 0, high: 1, log: true}}", "space.weight_decay.low: must be > 0 for log: true, got 0.0 (line 1)"),
        ("space: {learning_rate: {low: -1, high: 1}}", "space.learning_rate.low: must be > 0, got -1 (line 1)"),
        ("space: {dropout: {low: 0, high: 1}}", "space.dropout.high: must be < 1, got 1 (line 1)"),
        ("space: {dropout: {low: 0}}", "space.dropout.high: must be given (line 1)"),
        ("space: {dropout: {low: 0, high: 0.5, step: 0}}", "space.dropout.step: must be > 0, got 0.0 (line 1)"),
        ("space: {dropout: {low: 0, high: 0.5, step: 0.2}}", "space.dropout.step: must divide high - low (0.5), got 0.2 (line 1)"),
        ("space: {encoding_dim: {low: 2, high: 8, log: true, step: 2}}", "space.encoding_dim.step: must be null for log: true, got 2 (line 1)"),
        ("space: {encoding_dim: {low: 2.5, high: 8}}", "space.encoding_dim.low: must be a whole number, got 2.5 (line 1)"),
        ("space: {encoding_dim: {choices: []}}", "space.encoding_dim.choices: must be a list of length >= 1, got [] (line 1)"),
        ("space: {encoding_dim: {choices: [0]}}", "space.encoding_dim.choices.0: must be >= 1, got 0 (line 1)"),
        ("space: {encoding_dim: {choices: [4, x]}}", "space.encoding_dim.choices.1: must be a whole number, got 'x' (line 1)"),
        ("space: {encoding_dim: {choices: [4, 8, 4]}}", "space.encoding_dim.choices: must name each value once, got 4 (line 1)"),
        ("space: {hidden: {choices: [392, '392']}}", "space.hidden.choices: must name each value once, got '392' (line 1)"),
        ("space: {hidden: {choices: [[0]]}}", f"space.hidden.choices.0: {HIDDEN_RULE}, got [0] (line 1)"),
        ("space: {hidden: {choices: [392], when: {architecture: conv}}}", "space.hidden: must include dense, the only kind that has it, got 'conv' (line 1)"),
        ("space: {architecture: {choices: [mlp]}}", "space.architecture.choices.0: must be dense or conv, got 'mlp' (line 1)"),
        ("space: {architecture: {choices: [dense], when: {architecture: dense}}}", "space.architecture.when: must be null: the architecture cannot depend on itself, got ['dense'] (line 1)"),
        ("space: {dropout: {choices: [0], when: {architecture: mlp}}}", "space.dropout.when.architecture.0: must be dense or conv, got 'mlp' (line 1)"),
        (
            "space: {defaults: false}",
            (
                "space: must search at least one name, of one choice if need be "
                "(encoding_dim: {choices: [8]}), got 'none' (line 1)"
            ),
        ),
        # Between sections.
        ("search: {score_epochs: 3}\ntraining: {epochs: 2}", "search.score_epochs: must be <= training.epochs (2), got 3 (line 1)"),
        ("search: {score_epochs: 3}", "search.score_epochs: must be left out (it is 1): the score is that of the one epoch whose weights are kept, got 3 (line 1)"),
        ("search: {warmup_epochs: 20}\ntraining: {epochs: 20}", "search.warmup_epochs: must be < training.epochs (20), got 20 (line 1)"),
        ("search: {warmup_epochs: 20}\nretrain: {max_epochs: 20}", "search.warmup_epochs: must be < retrain.max_epochs (20), got 20 (line 1)"),
        ("space: {architecture: both}", "space.architecture: must be {choices}, auto or null, got 'both' (line 1)"),
        ("data: {limit: 20}\nsearch: {folds: 21}", "search.folds: must be <= data.limit (20), got 21 (line 2)"),
        ("search: {sampler: grid}\nspace: {defaults: false, dropout: {low: 0, high: 0.5}}", "space.dropout: must have choices or step for sampler grid, got a range (line 2)"),
        # Corruptions.
        ("training: {corruption: blur}", "training.corruption: must be none, gaussian, uniform, salt-and-pepper or occlusion, got 'blur' (line 1)"),
        ("training: {corruption: gaussian, corruption_level: -1}", "training.corruption_level: must be >= 0, got -1 (line 1)"),
        ("training: {corruption: occlusion, corruption_level: 1.5}", "training.corruption_level: must be <= 1 for training.corruption occlusion, got 1.5 (line 1)"),
        ("training: {corruption: salt-and-pepper, validation_corruption_level: 2}", "training.validation_corruption_level: must be <= 1 for training.corruption salt-and-pepper, got 2.0 (line 1)"),
        ("training: {corruption: occlusion}\nspace: {corruption_level: {low: 0, high: 2}}", "space.corruption_level.high: must be <= 1 for training.corruption occlusion, got 2.0 (line 2)"),
        ("training: {corruption: occlusion}\nspace: {corruption_level: {choices: [0.5, 2]}}", "space.corruption_level.choices: must be <= 1 for training.corruption occlusion, got 2.0 (line 2)"),
        ("space: {corruption_level: {choices: [0.5]}}", "space.corruption_level: must be null unless training.corruption is set, got {'choices': [0.5]} (line 1)"),
        ("space: {corruption: {choices: [gaussian]}}", "space.corruption: must not be searched, because losses under different corruptions cannot be compared; set training.corruption (line 1)"),
        # YAML itself.
        ("a: 1\nb:\n  c: 1\n  c: 2", "b.c: must be given once, got it again on line 4 (first on line 3)"),
        ("seed: 1\nseed: 1", "seed: must be given once, got it again on line 2 (first on line 1)"),
        ("name: x\n\tseed: 3", "line 2: must be indented with spaces, got a tab"),
        ("search:\n\tfolds: 3", "line 2: must be indented with spaces, got a tab"),
        ("search:\n  folds: 3\n\ttrials: 3", "line 3: must be indented with spaces, got a tab"),
        ("seed: 1\nname: !!python/object/apply:os.system ['x']", "line 2: must not use tags, got !!python/object/apply:os.system"),
        ("seed: !!int '3'", "line 1: must not use tags, got !!int"),
        ("name: !custom x", "line 1: must not use tags, got !custom"),
        ("seed: 1\n---\nseed: 2", "line 2: must be one document, got a second one (several studies are one document with the key studies)"),
        ("seed: 1\nname: " + "[" * 100, "line 2: must be nested at most 20 deep, got more"),
        ("name: x\0y", "line 1: must be printable text, got character U+0000"),
        ("[a]: 1", "line 1: must have words as keys, got a list or mapping"),
        ("seed: " + "9" * 5000, "seed: must be a shorter number, got too many digits (line 1)"),
        ("- 1", "must be a mapping of keys to values, got [1]"),
        ("digits", "must be a mapping of keys to values, got 'digits'"),
        ("#" * 1_000_001, "must be at most 1,000,000 bytes, got more"),
    ],
)  # fmt: skip
def test_one_problem_is_named_exactly(text, problem):
    assert problems(text) == [problem]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("seed: 1\nname: [a", "line 2: must be YAML, got 'name: [a'"),
        ("seed: 1\nname 'x\n", "line 2: must be YAML, got "),
        ("seed: 1\nname: [a\n\n\n", "line 2: must be YAML, got 'name: [a'"),
        ("a: b: c", "line 1: must be YAML, got 'a: b: c'"),
    ],
)
def test_syntax_error_has_its_line(text, start):
    (problem,) = problems(text)
    assert problem.startswith(start)


def test_aliases_cannot_blow_up():
    """Nine levels of nine references each would be 387 million entries."""
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10))
    found = problems("l0: &l0 [x]\n" + levels)
    assert found[0] == "line 1: must not use anchors, got &l0"
    assert "line 2: must not use aliases, got *l0" in found


def test_every_problem_is_reported_at_once():
    """Rules between sections are checked although other values are broken."""
    assert problems(
        """
        lerning_rate: 1
        search: {folds: 1, score_epochs: 50}
        space:
          encoding_dim: {choices: [0, 4]}
          dropout: {low: 0.5, high: 0.1, log: true, step: 0.1}
        training: {epochs: 20}
        """
    ) == [
        "space.encoding_dim.choices.0: must be >= 1, got 0 (line 5)",
        "space.dropout.low: must be <= high (0.1), got 0.5 (line 6)",
        "space.dropout.step: must be null for log: true, got 0.1 (line 6)",
        "search.folds: must be >= 2, got 1 (line 3)",
        "lerning_rate: unknown key; did you mean 'training.learning_rate'? (line 2)",
        "search.score_epochs: must be <= training.epochs (20), got 50 (line 3)",
    ]


def test_no_problem_follows_from_another():
    """score_epochs is not compared with the default of an epochs that is broken."""
    found = problems("search: {score_epochs: 50}\ntraining: {epochs: many}")
    assert found == ["training.epochs: must be a whole number >= 1 or auto, got 'many' (line 2)"]


def test_message_names_the_source_and_counts(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("search:\n  folds: 1\n  trials: 0\n")
    with pytest.raises(SpecError) as caught:
        load_spec(file=path)
    assert str(caught.value) == (
        f"{path} is invalid (2 problems):\n"
        "  - search.folds: must be >= 2, got 1 (line 2)\n"
        "  - search.trials: must be >= 1, got 0 (line 3)"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["folds"], ["--set: must be KEY=VALUE with a dotted key, got 'folds'"]),
        (["=3"], ["--set: must be KEY=VALUE with a dotted key, got '=3'"]),
        (["search..folds=3"], ["--set: must be KEY=VALUE with a dotted key, got 'search..folds=3'"]),
        (["search.fold=3"], ["search.fold: unknown key; did you mean 'folds'?"]),
        (["seed.x=3"], ["seed: must be a mapping of keys to values, got 7"]),
        (["name=*x"], ["--set name: line 1: must not use aliases, got *x"]),
        (["folds", "search.folds=1"], ["--set: must be KEY=VALUE with a dotted key, got 'folds'", "search.folds: must be >= 2, got 1"]),
    ],
)  # fmt: skip
def test_bad_override_is_named(overrides, found):
    """The line of the file is not blamed for what an override brings."""
    assert problems("seed: 7\nsearch: {folds: 3}", overrides=overrides) == found


def test_bad_flag_is_named():
    assert problems(flags={"search.folds": 1}) == ["search.folds: must be >= 2, got 1"]


def test_unknown_preset_lists_the_known_ones():
    (problem,) = problems(preset="../mnist")
    assert problem.startswith("preset: must be one of architectures, conv-")
    assert problem.endswith(", digits, fashion-mnist, mnist, got '../mnist'")


def test_stored_mapping_is_judged_under_its_own_name():
    with pytest.raises(SpecError, match="study 'a' is invalid"):
        spec_from_mapping({"search": {"folds": 1}}, "study 'a'")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"seed: 1\nname: caf\xe9\n", "line 2: must be UTF-8 text, got byte 0xe9"),
        (b"\x89PNG\r\n\x1a\n", "line 1: must be UTF-8 text, got byte 0x89"),
        (b"\x00\x01\x02", "line 1: must be printable text, got character U+0000"),
        (b"seed: 1\n" * 125_001, "must be at most 1,000,000 bytes, got more"),
    ],
)
def test_file_that_is_no_text_is_refused(tmp_path, content, problem):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_spec(file=path)
    assert caught.value.source == str(path)
    assert caught.value.problems == [problem]


def test_missing_file_is_refused(tmp_path):
    assert problems(file=tmp_path / "none.yaml") == ["must be a file, got nothing at this path"]


def test_folder_is_refused(tmp_path):
    assert problems(file=tmp_path) == ["must be a file, got a folder"]
