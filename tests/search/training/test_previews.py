"""The strip of reconstructions is small, exact, and the same every time."""

import io

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from PIL import Image

from aesearch.data.study_data import load_problem
from aesearch.models.autoencoder import build_autoencoder
from aesearch.studies.store import study_rows, tables
from aesearch.studies.store.connection import database
from aesearch.studies.store.optuna import optuna_tables
from aesearch.training.members import build_member, build_population, images_as_validated
from aesearch.training.memory import images_for
from aesearch.training.previews import MAX_BYTES, MAX_COLUMNS, MAX_SIDE, reconstruction_strip


class Negative(torch.nn.Module):
    """A network whose reconstruction is known: the negative of its input."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, images):
        """One minus the input, which must come in the type of the weights."""
        assert images.dtype == self.one.dtype
        return self.one - images


def opened(picture):
    """The pixels of a strip."""
    return np.asarray(Image.open(io.BytesIO(picture.png)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (5, 9)])
def test_originals_stand_above_reconstructions(shape, dtype):
    """Every pixel of a small grey image is found again, and below it what the network made."""
    images = np.random.default_rng(0).integers(0, 256, (3, 1, *shape), dtype=np.uint8)
    pixels = opened(reconstruction_strip(Negative(dtype), images))
    height, width = shape
    assert pixels.shape == (2 * height + 1, 3 * (width + 1) - 1)
    for column, image in enumerate(images[:, 0]):
        left = column * (width + 1)
        np.testing.assert_array_equal(pixels[:height, left : left + width], image)
        np.testing.assert_array_equal(pixels[height + 1 :, left : left + width], 255 - image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (200, 120), (1, 300)])
def test_a_strip_stays_small(channels, size):
    """Noise cannot be compressed: fewer and smaller images are shown; the words say how many."""
    images = np.random.default_rng(0).integers(0, 256, (20, channels, *size), dtype=np.uint8)
    picture = reconstruction_strip(Negative(), images)
    columns = int(picture.alt.split()[0])
    assert len(picture.png) <= MAX_BYTES
    assert 2 <= columns <= MAX_COLUMNS
    height, width = opened(picture).shape[:2]
    side = max((height - 1) // 2, (width + 1) // columns - 1)
    assert side == min(MAX_SIDE, max(size))


def test_a_denoiser_shows_what_it_saw():
    """Between originals and reconstructions stands the corrupted image that was given in."""
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)
    corrupted = torch.full((2, 1, 8, 8), 0.2)
    corrupted[0, 0, 0, 0] = 1.5
    picture = reconstruction_strip(Negative(), images, corrupted)
    pixels = opened(picture)
    assert picture.alt.startswith("2 validation images of fold 0 above, then corrupted")
    np.testing.assert_array_equal(pixels[:8, :8], images[0, 0])
    assert pixels[9, 0] == 255
    assert (pixels[9:17, 9:] == 51).all()
    assert pixels[18, 0] == 0
    assert (pixels[18:, 9:] == 204).all()


def test_one_image_is_enough():
    """A fold of one image has a strip, and words in the singular."""
    picture = reconstruction_strip(Negative(), np.zeros((1, 1, 4, 4), dtype=np.uint8))
    assert picture.alt == "a validation image of fold 0 above, its reconstruction below"


def test_colours_are_kept():
    """A red image stays red, its negative is cyan."""
    images = np.zeros((1, 3, 16, 16), dtype=np.uint8)
    images[:, 0] = 255
    strip = Image.open(io.BytesIO(reconstruction_strip(Negative(), images).png)).convert("RGB")
    assert strip.getpixel((8, 8)) == (255, 0, 0)
    assert strip.getpixel((8, 25)) == (0, 255, 255)


def test_the_same_network_gives_the_same_bytes():
    """Twice the same weights and images, twice the same file."""
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 28, 28), dtype=np.uint8)
    pictures = [
        reconstruction_strip(
            build_autoencoder(
                architecture="dense", image_shape=(1, 28, 28), encoding_dim=4, seed=3
            ).eval(),
            images,
        )
        for _ in range(2)
    ]
    assert pictures[0] == pictures[1]


def test_the_corrupted_row_is_what_the_validation_scored(tiny_spec):
    """The loss of the shown kind of input, over all of fold 0, is the population's own."""
    spec = tiny_spec("training.corruption=gaussian", "training.corruption_level=0.4")
    problem = load_problem(spec, device="cpu")
    configuration = problem.spec.configuration({})
    train, held_out = problem.fold_indices(0)
    population = build_population(
        problem,
        images_for(problem, "cpu"),
        [build_member(configuration, 7, train, held_out)],
        configuration,
        epochs=1,
    )
    scored = population.run_epoch().validation[0].item()
    clean = torch.from_numpy(problem.images[held_out]).float() / 255
    with torch.inference_mode():
        output = population.extract(0)(images_as_validated(problem, held_out))
    assert (output - clean).square().mean().item() == pytest.approx(scored, rel=1e-5)


def pictures_of(engine):
    """Number, name and bytes of every picture of the study."""
    study = study_rows.find_study(engine, "digits")
    with database.reading(engine) as connection:
        numbers = {i: n for n, i in optuna_tables.trial_ids(connection, study.study_id).items()}
        rows = connection.execute(sa.select(tables.trial_picture)).all()
    return sorted((numbers[row.trial_id], row.name, row.alt, bytes(row.png)) for row in rows)


def test_every_completed_trial_has_one_strip(tmp_path, tiny_spec, create_study, work):
    """Complete trials and no others; the originals are fold 0's; another run gives the bytes."""
    found = []
    spec = tiny_spec("search.pruner=median", "search.startup_trials=1", "search.trials=6")
    for word in ("one", "two"):
        engine = create_study(tmp_path / f"{word}.db", spec)
        work(engine, kinds=("search",))
        found.append(pictures_of(engine))
    trials = study_rows.snapshot(engine, "digits").trials
    complete = [trial.number for trial in trials if trial.state == "complete"]
    assert len(complete) > 0
    assert [row[0] for row in found[0]] == complete
    assert found[0] == found[1]
    problem = load_problem(spec, device="cpu")
    held_out = problem.images[problem.fold_indices(0)[1]]
    strip = np.asarray(Image.open(io.BytesIO(found[0][0][3])))
    np.testing.assert_array_equal(strip[:8, :8], held_out[0, 0])
    np.testing.assert_array_equal(strip[:8, 9:17], held_out[1, 0])
