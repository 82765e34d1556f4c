"""Specifications as YAML: round trips, layers, overrides, comparison, schema, presets."""

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from aesearch.studies.errors import SpecError
from aesearch.studies.presets import preset_text
from aesearch.studies.spec.load import (
    diff,
    json_schema,
    load_spec,
    spec_from_mapping,
    to_yaml,
)
from aesearch.studies.spec.strict_yaml import parse
from aesearch.studies.spec.study import StudySpec

positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
counts = st.integers(1, 1_000_000)
texts = st.text(st.characters(exclude_categories=["Cs"]))
words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=200)
widths = st.lists(counts, max_size=4)
autos = st.one_of(st.just("auto"), counts)
conditions = st.sampled_from(
    [None, {"architecture": "dense"}, {"architecture": "conv"}, {"architecture": ["dense", "conv"]}]
)


@st.composite
def dimensions(draw, values, where=conditions):
    when = draw(where)
    if draw(st.booleans()):
        return {"choices": draw(st.lists(values, min_size=1, unique=True)), "when": when}
    low, high = sorted([draw(values), draw(values)])
    return {"low": low, "high": high, "log": draw(st.booleans()) and low > 0, "when": when}


documents = st.fixed_dictionaries(
    {
        "space": st.fixed_dictionaries(
            {"learning_rate": dimensions(positive, where=st.none())},
            optional={
                "architecture": st.none(),
                "weight_decay": st.none() | dimensions(positive),
                "encoding_dim": dimensions(counts),
                "dropout": dimensions(st.floats(0, 0.999)),
                "hidden": st.fixed_dictionaries(
                    {"choices": st.lists(widths, min_size=1, unique_by=tuple)}
                ),
            },
        ),
        "training": st.fixed_dictionaries(
            {"epochs": st.integers(3, 1_000_000)},
            optional={"learning_rate": positive, "weight_decay": positive, "batch_size": autos},
        ),
    },
    optional={
        "name": st.none() | words,
        "description": texts,
        "seed": st.integers(0, 2**32 - 1),
        "data": st.fixed_dictionaries({}, optional={"dataset": words, "data_dir": texts}),
        "model": st.fixed_dictionaries(
            {"architecture": st.just("dense")},
            optional={"dense": st.fixed_dictionaries({"hidden": st.just("auto") | widths})},
        ),
        "search": st.fixed_dictionaries({}, optional={"timeout": st.none() | positive}),
    },
)


@settings(deadline=None)
@given(documents)
def test_yaml_gives_the_specification_back(document):
    spec = spec_from_mapping(document, "example")
    assert load_spec(text=to_yaml(spec)) == spec


def test_yaml_is_readable():
    """Sections keep the order of the specification; lists and dimensions take one line."""
    lines = to_yaml(StudySpec()).splitlines()
    assert [line.split(":")[0] for line in lines if line[0] != " "] == list(StudySpec.model_fields)
    assert "    channels: [16, 32, 64]" in lines
    assert "  learning_rate: {low: 0.001, high: 0.008, log: true}" in lines
    assert "  architecture: auto" in lines


@settings(deadline=None)
@given(documents)
def test_stored_values_give_the_specification_back(document):
    spec = spec_from_mapping(document, "example")
    assert spec_from_mapping(spec.model_dump(mode="json"), "store") == spec


@settings(deadline=None)
@given(documents)
def test_other_yaml_readers_read_the_same_numbers(document):
    """A YAML 1.1 reader takes 1e-05 for text, so that it is written 1.0e-05."""
    spec = spec_from_mapping(document, "example")
    read = yaml.safe_load(to_yaml(spec))
    assert read["training"]["learning_rate"] == spec.training.learning_rate
    assert read["description"] == spec.description


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029"])
def test_line_breaks_of_unicode_are_kept(mark):
    """In a text of one line and of several, alone and among others."""
    for text in (mark, f"a{mark}b", f"a\nb{mark}", f"{mark} c: d"):
        spec = spec_from_mapping({"description": text}, "example")
        assert load_spec(text=to_yaml(spec)).description == text
        assert yaml.safe_load(to_yaml(spec))["description"] == text


@given(st.floats())
def test_floats_survive_yaml(value):
    found, _ = parse(yaml.dump({"x": value}), "example")
    assert type(found["x"]) is float
    assert found["x"] == value or (math.isnan(found["x"]) and math.isnan(value))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("1E4", 1e4),
        ("-1.5e+3", -1500.0),
        ("5e-324", 5e-324),
        (".5", 0.5),
        ("5.", 5.0),
        (".INF", math.inf),
        ("-.inf", -math.inf),
        ("010", 10),
        ("-3", -3),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-11-01", "2026-11-01"),
        ("'1e-4'", "1e-4"),
        ("none", "none"),
        ("null", None),
        ("~", None),
        ("", None),
        ("256-128", "256-128"),
    ],
)
def test_scalars_are_read_as_yaml_1_2(written, value):
    found, _ = parse(f"x: {written}", "example")
    assert found == {"x": value}
    assert type(found["x"]) is type(value)


def test_lines_of_keys_are_known():
    _, lines = parse("a: 1\n\nb:\n  c: {d: 2}\n", "example")
    assert lines == {("a",): 1, ("b",): 3, ("b", "c"): 4, ("b", "c", "d"): 4}


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "---\n", "{}", "search:\nspace:\n", "\ufeff"]
)
def test_empty_file_and_empty_sections_are_the_defaults(text):
    assert load_spec(text=text) == StudySpec()


def test_later_layers_win(tmp_path):
    """Defaults < file < flags < overrides."""
    path = tmp_path / "study.yaml"
    path.write_text("seed: 1\nsearch: {folds: 4, trials: 7}\ntraining: {epochs: 9}\n")
    spec = load_spec(
        file=path,
        flags={"search.trials": 8, "training.epochs": 10},
        overrides=["training.epochs=11"],
    )
    assert (spec.seed, spec.search.folds, spec.search.trials) == (1, 4, 8)
    assert spec.training.epochs == 11
    assert spec.retrain == StudySpec().retrain


def test_flags_come_over_a_preset():
    spec = load_spec(preset="mnist", flags={"search.folds": 4})
    assert spec.search.folds == 4
    assert spec.description == load_spec(preset="mnist").description


@pytest.mark.parametrize(
    ("flags", "overrides", "kept"),
    [
        ({"data.dataset": "faces.npy"}, [], False),
        ({}, ["data.dataset=usps"], False),
        ({}, ["data={limit: 300}"], False),
        ({"data.dataset": "Fashion_MNIST"}, [], True),
        ({"data.dataset": "usps"}, ["data.dataset=fashion-mnist"], True),
        ({"data.dataset": None}, ["data.dataset=fashion-mnist"], True),
    ],
)
def test_the_description_of_a_preset_goes_with_its_images(flags, overrides, kept):
    """Other images are not what it tells of; the same ones by another spelling are."""
    spec = load_spec(preset="fashion-mnist", flags=flags, overrides=overrides)
    assert spec.description == (load_spec(preset="fashion-mnist").description if kept else "")


def test_a_description_of_the_user_stays_with_other_images(tmp_path):
    """That of a file, and one that is given beside a preset."""
    path = tmp_path / "study.yaml"
    path.write_text(preset_text("mnist"))
    flags = {"data.dataset": "usps"}
    assert load_spec(file=path, flags=flags).description == load_spec(preset="mnist").description
    given = load_spec(preset="mnist", flags=flags, overrides=["description=mine"])
    assert given.description == "mine"


def test_one_base_only():
    with pytest.raises(SpecError, match="must start from one of preset, file, text, spec"):
        load_spec(preset="mnist", text="")


@pytest.mark.parametrize(
    ("override", "name", "expected"),
    [
        ("space.encoding_dim.choices=[4,8,16,32,64]", "encoding_dim", [4, 8, 16, 32, 64]),
        ("space.learning_rate.high=1e-1", "learning_rate", (1e-3, 1e-1, True)),
        ("space.learning_rate.choices=[1e-3]", "learning_rate", [1e-3]),
        ("space.encoding_dim={low: 2, high: 9}", "encoding_dim", (2, 9, False)),
        ("space.dropout=null", "dropout", None),
        ("space.dropout=", "dropout", None),
    ],
)
def test_override_of_a_dimension(override, name, expected):
    """A key of one form leaves the other form; the rest of the default dimension stays."""
    dimension = getattr(load_spec(overrides=[override]).space, name)
    if isinstance(expected, list):
        assert list(dimension.choices) == expected
    elif expected is None:
        assert dimension is None
    else:
        assert (dimension.low, dimension.high, dimension.log) == expected


def test_override_of_a_dimension_of_the_file_keeps_its_rest():
    text = "space: {dropout: {low: 0.1, high: 0.2, when: {architecture: conv}}}"
    found = load_spec(text=text, overrides=["space.dropout.high=0.4"]).space.dropout
    assert (found.low, found.high, found.when.architecture) == (0.1, 0.4, ("conv",))


def test_override_turns_choices_into_a_range():
    overrides = ["space.encoding_dim.low=2", "space.encoding_dim.high=64"]
    found = load_spec(overrides=overrides).space.encoding_dim
    assert (found.low, found.high) == (2, 64)


def test_override_brings_a_removed_dimension_back():
    spec = load_spec(text="space: {dropout: null}", overrides=["space.dropout.high=0.25"])
    assert (spec.space.dropout.low, spec.space.dropout.high) == (0.0, 0.25)


def test_repaired_value_is_no_problem():
    """What a stronger layer replaces is never judged."""
    assert load_spec(text="search: {folds: 0}", overrides=["search.folds=4"]).search.folds == 4


def test_equal_specifications_compare_without_difference():
    assert diff(StudySpec(), load_spec(text=to_yaml(StudySpec()))) == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("search.folds=5", "search.folds: 3 -> 5"),
        ("seed=1", "seed: 0 -> 1"),
        ("compute.device=cpu", "compute.device: auto -> cpu"),
        ("data.limit=100", "data.limit: null -> 100"),
        ("training.learning_rate=1e-5", "training.learning_rate: 0.003 -> 1.0e-05"),
        ("model.dense.hidden=256-128", "model.dense.hidden: auto -> [256, 128]"),
        (
            "space.encoding_dim.choices=[4,8]",
            "space.encoding_dim.choices: [4, 8, 16, 32] -> [4, 8]",
        ),
        ("space.dropout.high=0.4", "space.dropout.high: 0.1 -> 0.4"),
        ("space.dropout=null", "space.dropout: {low: 0.0, high: 0.1, log: false} -> null"),
        (
            "space.dropout.choices=[0.1]",
            "space.dropout: {low: 0.0, high: 0.1, log: false} -> {choices: [0.1]}",
        ),
    ],
)
def test_difference_names_key_and_both_values(override, line):
    assert diff(StudySpec(), load_spec(overrides=[override])) == [line]


@pytest.mark.parametrize(
    "override",
    [
        "search.trials=70",
        "search.timeout=60",
        "search.select=one-se",
        "data.data_dir=/elsewhere",
        "description=other words",
        "retrain.seeds=5",
        "retrain.holdout=0.2",
        "evaluation.bootstrap=10",
        "evaluation.robustness.gaussian=[]",
    ],
)
def test_what_may_change_between_runs_is_no_difference(override):
    fixed = load_spec(overrides=["training.epochs=20"])
    changed = load_spec(overrides=["training.epochs=20", override])
    assert changed != fixed
    assert diff(fixed, changed) == []


def property_schemas():
    schema = json_schema()
    for name, definition in {"StudySpec": schema, **schema["$defs"]}.items():
        for key, inner in definition.get("properties", {}).items():
            yield pytest.param(inner, id=f"{name}.{key}")


def test_schema_covers_every_section():
    assert set(json_schema()["properties"]) == {*StudySpec.model_fields, "studies", "result"}
    assert {"SearchSpec", "SpaceSpec", "LearningRateRange"} <= set(json_schema()["$defs"])


@pytest.mark.parametrize("schema", list(property_schemas()))
def test_every_field_is_described(schema):
    assert len(schema.get("description", "")) > 10


def test_schema_references_resolve():
    """The readable names of the definitions are the ones that are referred to."""
    text = str(json_schema())
    names = {part.split("'")[0] for part in text.split("#/$defs/")[1:]}
    assert names == set(json_schema()["$defs"])


@pytest.mark.parametrize(
    "text", ["lerning_rate: 1", "search: {folds: 1}", "space: {dropout: {low: 0}}", "seed: x"]
)
def test_schema_refuses_what_loading_refuses(text):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    assert not validator.is_valid(parse(text, "example")[0])
