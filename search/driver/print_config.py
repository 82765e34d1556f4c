"""What a specification comes to on this machine: the YAML of ``aesearch run --print-config``."""

import sys

from aesearch.data.load import known_name, load
from aesearch.data.study_data import load_problem
from aesearch.device import planned_device, present_device
from aesearch.studies.errors import DataMissingError
from aesearch.studies.spec.load import to_yaml
from aesearch.studies.spec.study import StudySpec
from aesearch.workers.ray_cluster import Cluster


def resolved_yaml(
    asked: StudySpec, *, detach: bool, ray: str | None, gpus_per_worker: float | None
) -> str:
    """Write the specification with every ``auto`` made concrete, if the images are here.

    Parameters
    ----------
    detach : bool
        Whether workers elsewhere are to train it.
    ray : str, optional
        Address of the Ray cluster that is to train it, with so many GPUs for each worker.
    """
    try:
        load(asked.data.dataset, asked.data.data_dir, download=False)
    except DataMissingError as error:
        if known_name(asked.data.dataset) is None:
            raise
        sys.stderr.write(f"what is 'auto' depends on the images, which are not here: {error}\n")
        return to_yaml(asked)
    device_of = planned_device if detach else present_device
    if ray is not None:
        device_of = Cluster(ray, gpus_per_worker).device
    return to_yaml(load_problem(asked, device=device_of(asked)).spec)
