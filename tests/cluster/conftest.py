"""A SLURM for the tests here, and a run on it to compare others with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_slurm import LocalSlurm
from training_job import TrainingJob


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes, each has a SLURM of its own, and one the run that is not disturbed."""
    for item in items:
        needs_run = "undisturbed" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("undisturbed" if needs_run else item.path.name))


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalSlurm]:
    # mpirun asks whether root means it.
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    with LocalSlurm(environment={"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", **root}) as slurm:
        yield slurm


@pytest.fixture(scope="session")
def undisturbed(
    cluster: LocalSlurm, tmp_path_factory: pytest.TempPathFactory, small_corpus: Path
) -> TrainingJob:
    """A run that nobody disturbs, finished."""
    run = TrainingJob(cluster, tmp_path_factory.mktemp("undisturbed"), small_corpus)
    run.finish()
    return run
