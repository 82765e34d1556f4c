"""Presets and series of studies: what they hold, how layers add up, and the small versions."""

import json

import pytest
from typer.testing import CliRunner

from aesearch.cli import app
from aesearch.models.autoencoder import build_autoencoder
from aesearch.studies.errors import RunFailedError, SpecError, StoreError
from aesearch.studies.presets import preset_names, preset_text
from aesearch.studies.spec.load import json_schema, load_spec, to_yaml
from aesearch.studies.spec.quick import quick_spec
from aesearch.studies.spec.resolved import resolve
from aesearch.studies.spec.series import load_series
from aesearch.studies.spec.strict_yaml import parse

SERIES = """
name: codes
training: {epochs: 7, learning_rate: 0.5}
space: {defaults: false}
studies:
  small: {space: {encoding_dim: {choices: [2]}}}
  large:
    training: {learning_rate: 0.1}
    space: {encoding_dim: {choices: [9]}}
"""

STUDIES = {
    "conv-by-dimension": 4,
    "conv-grid": 4,
    "dense-bottleneck": 3,
    "dense-by-dimension": 9,
    "dense-depth": 9,
    "dense-loss-curve": 3,
    "dense-single-layer": 7,
}


def test_each_study_is_what_is_shared_and_what_is_its_own():
    """Its own settings win; the word of the study ends its name."""
    small, large = load_series(text=SERIES)
    assert (small.name, large.name) == ("codes-small", "codes-large")
    assert (small.training.learning_rate, large.training.learning_rate) == (0.5, 0.1)
    assert (small.training.epochs, large.training.epochs) == (7, 7)
    alone = load_spec(
        text="{name: codes-large, training: {epochs: 7, learning_rate: 0.1}, "
        "space: {defaults: false, encoding_dim: {choices: [9]}}}"
    )
    assert large == alone


def test_flags_and_overrides_change_every_study():
    """Also the name: it is that of the series."""
    specs = load_series(
        text=SERIES, flags={"training.epochs": 3, "name": "mine"}, overrides=["seed=5"]
    )
    assert [(s.name, s.training.epochs, s.seed) for s in specs] == [
        ("mine-small", 3, 5),
        ("mine-large", 3, 5),
    ]


@pytest.mark.parametrize("quick", [False, True], ids=["whole", "quick"])
def test_a_series_describes_the_images_that_it_has(quick):
    """Each study of a preset by itself: MNIST is no news to those that are of MNIST."""
    specs = load_series(preset="dense-depth", flags={"data.dataset": "mnist"}, quick=quick)
    described = {str(spec.name).removesuffix("-quick"): bool(spec.description) for spec in specs}
    assert described["dense-depth-mnist"]
    assert not described["dense-depth-fashion"]
    (alone,) = load_series(preset="mnist", flags={"data.dataset": "usps"}, quick=quick)
    assert not alone.description


def test_a_series_without_a_name_is_called_after_its_file(tmp_path):
    """A file that was copied and changed is another series."""
    path = tmp_path / "copy.yaml"
    path.write_text(SERIES.replace("name: codes", ""))
    assert [spec.name for spec in load_series(file=path)] == ["copy-small", "copy-large"]


def test_a_specification_of_one_study_is_a_series_of_one():
    assert load_series(text="seed: 3") == [load_spec(text="seed: 3")]


@pytest.mark.parametrize(
    ("shared", "own"),
    [
        ("{low: 1.0e-4, high: 1.0e-2, log: true}", "{choices: [0.001]}"),
        ("{choices: [0.001]}", "{low: 1.0e-4, high: 1.0e-2, log: true}"),
    ],
)
def test_a_study_may_give_a_dimension_the_other_form(shared, own):
    """As ``--set`` may: what sets a key of one form leaves the other."""
    text = (
        f"space: {{learning_rate: {shared}}}\nstudies: {{a: {{space: {{learning_rate: {own}}}}}}}"
    )
    (found,) = load_series(text=text)
    (alone,) = load_series(text=f"studies: {{a: {{space: {{learning_rate: {own}}}}}}}")
    assert found.space == alone.space


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("studies: {}", "studies: must be a mapping of names to what differs"),
        ("studies: [a]", "studies: must be a mapping of names to what differs"),
        ("studies: {a: 1}", "studies.a: must be a mapping of keys to values, got 1"),
        ("studies: {a: {name: b}}", "studies.a.name: must be absent"),
        ("studies: {a: {studies: {}}}", "studies.a.studies: must be absent"),
        (f"studies: {{{'a' * 61}: {{}}}}", "must have names of length <= 60"),
        ("studies: {a: {seed: x}}", "study, study a is invalid (1 problem):\n  - seed"),
        ("studies:\n  a:\n    seed: x", "must be a whole number, got 'x' (line 3)"),
        ("seed: x\nstudies: {a: {}}", "must be a whole number, got 'x' (line 1)"),
    ],
)
def test_a_wrong_series_is_refused(text, words):
    """With the path, and the line where it stands."""
    with pytest.raises(SpecError) as caught:
        load_series(text=text)
    assert words in str(caught.value)


def test_the_studies_of_a_series_are_named_by_its_own_flag():
    """One name for all of them would make the second another specification of the first."""
    with pytest.raises(SpecError, match="name: must be absent for a series"):
        load_series(text=SERIES, overrides=["name=mine"])


def test_a_series_is_no_single_study():
    """Who asks for one specification is told what holds several."""
    with pytest.raises(SpecError, match="studies: must be absent where one study is meant"):
        load_spec(text=SERIES)


@pytest.mark.parametrize("name", preset_names())
def test_preset_is_valid_and_described(name):
    """Each of its studies can be written, read again, and made concrete."""
    specs = load_series(preset=name)
    assert len(specs) == STUDIES.get(name, 1)
    assert len({spec.name for spec in specs}) == len(specs)
    for spec in specs:
        assert len(spec.description) > 20
        assert load_spec(text=to_yaml(spec)) == spec
        resolve(spec, image_shape=(1, 28, 28), n_train=60_000, device="cpu")


@pytest.mark.parametrize("name", preset_names())
def test_preset_satisfies_the_schema(name):
    """As it is written, series or not, and each study as it is resolved."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    documents = [preset_text(name), *map(to_yaml, load_series(preset=name))]
    messages = [
        error.message
        for document in documents
        for error in validator.iter_errors(parse(document, name)[0])
    ]
    assert messages == []


def test_the_schema_refuses_a_study_that_is_none():
    """The entries of a series are checked like a specification."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid({"studies": {"a": {"seed": 1}}})
    assert not validator.is_valid({"studies": {"a": {"sead": 1}}})
    assert not validator.is_valid({"studies": {}})


@pytest.mark.parametrize("name", preset_names())
def test_the_small_version_differs_in_size_only(name):
    """Networks, space, optimiser and folds are those of the whole study."""
    for whole, small in zip(
        load_series(preset=name), load_series(preset=name, quick=True), strict=True
    ):
        assert small.name.endswith("-quick")
        assert small.name != whole.name
        assert (small.model, small.space) == (whole.model, whole.space)
        assert small.search.folds == whole.search.folds
        assert (small.data.limit, small.retrain.max_epochs) == (300, 5)
        scored = "auto" if whole.training.epochs == "auto" else 5
        assert small.training.epochs == scored
        assert whole.training.batch_size == "auto" or small.training.batch_size == 50
        sizes = {"epochs", "batch_size"}
        assert small.training.model_dump(exclude=sizes) == whole.training.model_dump(exclude=sizes)
        resolve(small, image_shape=(1, 8, 8), n_train=300, device="cpu")


def test_the_small_version_has_the_name_of_the_whole():
    """Also where the images' folder gives none."""
    assert quick_spec(load_spec(overrides=["data.dataset=."])).name == "study-quick"
    assert quick_spec(load_spec(overrides=["data.dataset=photos/"])).name == "photos-quick"


def test_the_small_version_never_makes_a_study_larger():
    """What is small already stays as it is."""
    small = load_spec(text="{data: {limit: 40}, training: {epochs: 2}, search: {trials: 3}}")
    quick = quick_spec(small)
    assert (quick.data.limit, quick.training.epochs, quick.search.trials) == (40, 2, 3)
    assert quick.training.batch_size == "auto"
    assert quick.name == "digits-quick"


def test_report_002_has_its_number_of_parameters():
    """784-392-8-392-784 is what its Figure 1 counts: 622,504."""
    spec = load_series(preset="dense-loss-curve")[0]
    spec = resolve(spec, image_shape=(1, 28, 28), n_train=60_000, device="cpu")
    found = spec.configuration({"encoding_dim": 8})
    model = build_autoencoder(
        architecture=found.architecture,
        image_shape=(1, 28, 28),
        encoding_dim=found.encoding_dim,
        hidden=found.hidden,
        code_activation=found.code_activation,
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == 622_504


def test_report_001_has_its_grid():
    """Nine configurations for each of four codes, and its rule for early stopping."""
    specs = load_series(preset="conv-grid")
    assert [spec.model.encoding_dim for spec in specs] == [4, 8, 16, 32]
    for spec in specs:
        pairs = {
            (found["learning_rate"], found["weight_decay"])
            for found in spec.space.grid_configurations()
        }
        assert pairs == {(a, b) for a in (1e-2, 1e-3, 1e-4) for b in (1e-3, 1e-4, 1e-5)}
        assert (spec.retrain.max_epochs, spec.retrain.patience) == (2000, 100)
        assert (spec.retrain.min_delta, spec.search.unstable_loss) == (1e-4, 0.1)
        assert (spec.training.epochs, spec.training.batch_size) == (20, 1000)


def test_run_prints_every_specification_of_a_series(monkeypatch, tmp_path):
    """As YAML documents, each of which is a whole specification."""
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "dense-loss-curve", "--quick", "--dataset", "digits", "--print-config"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    names = [load_spec(text=part).name for part in done.stdout.split("---\n")]
    words = ("batch-2048", "batch-64", "batch-64-linear")
    assert names == [f"dense-loss-curve-{word}-quick" for word in words]


def test_detach_leaves_every_study_of_a_series(monkeypatch, tmp_path):
    """One JSON object names them all."""
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "dense-loss-curve", "--quick", "--dataset", "digits", "--detach", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    left = json.loads(done.stdout)["studies"]
    assert [study["study"] for study in left] == [
        "dense-loss-curve-batch-2048-quick",
        "dense-loss-curve-batch-64-quick",
        "dense-loss-curve-batch-64-linear-quick",
    ]
    assert [study["trials"] for study in left] == [1, 1, 1]


def test_a_study_that_fails_does_not_keep_the_others_from_running(monkeypatch):
    """They are run, told of, and the failure is named at the end."""
    from aesearch.driver import run_series

    def search(*, spec, **_how):
        if spec.name == "codes-small":
            raise RunFailedError("no completed trial")
        return spec.name

    monkeypatch.setattr(run_series, "search", search)
    told = []
    with pytest.raises(RunFailedError, match="1 of 2 that did not") as caught:
        run_series.run_series(load_series(text=SERIES), finished=told.append)
    assert told == ["codes-large"]
    assert "study 'codes-small': no completed trial" in str(caught.value)


def test_a_series_stops_at_what_concerns_all_of_it(monkeypatch):
    """A store that cannot be opened is not tried for each study."""
    from aesearch.driver import run_series

    asked = []

    def search(*, spec, **_how):
        asked.append(spec.name)
        raise StoreError("away")

    monkeypatch.setattr(run_series, "search", search)
    with pytest.raises(StoreError):
        run_series.run_series(load_series(text=SERIES))
    assert asked == ["codes-small"]


def test_run_folders_of_a_series_lie_in_out(monkeypatch, tmp_path):
    """One for each study, by its name."""
    from aesearch.driver import run_series

    monkeypatch.setattr(run_series, "search", lambda *, out, **_how: out)
    found = run_series.run_series(load_series(text=SERIES), out=tmp_path, workers=2)
    assert found == [tmp_path / "codes-small", tmp_path / "codes-large"]


@pytest.mark.slow
def test_run_runs_a_series_and_goes_on_with_it(monkeypatch, tmp_path):
    """Each study has its run folder; the same command again has nothing left to do."""
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "dense-loss-curve", "--quick", "--dataset", "digits", "--json", "--quiet"]
    first, again = (CliRunner().invoke(app, arguments) for _ in range(2))
    assert first.exit_code == 0, first.stderr
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    names = [study["study"] for study in json.loads(first.stdout)["studies"]]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(names)
    assert all((tmp_path / "runs" / name / "best.yaml").is_file() for name in names)
