"""How the images of a model were read, as far as the best.yaml beside it tells."""

from pathlib import Path

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.sections import DataSpec
from aesearch.studies.spec.strict_yaml import parse, read_text

# What belongs to the images of the study, not to any others.
_OF_THE_STUDY = (
    *("dataset", "data_dir", "test_fraction", "limit", "test", "noisy", "noisy_test"),
    *("labels", "groups"),
)


def reading_of(model: Path) -> DataSpec:
    """Size, colours, range and the like of the images that a model was trained on.

    Parameters
    ----------
    model : Path
        A model file.

    Returns
    -------
    DataSpec
        As nothing were set, where no best.yaml can be read.
    """
    best = model.with_name("best.yaml")
    try:
        document, _ = parse(read_text(best), str(best))
        settings = {
            name: value
            for name, value in document["data"].items()
            if name in DataSpec.model_fields and name not in _OF_THE_STUDY
        }
        return DataSpec.model_validate(settings)
    except (SpecError, OSError, KeyError, TypeError, AttributeError, ValueError):
        return DataSpec()
