from collections.abc import Iterator
from pathlib import Path

import pytest
from local_slurm import LocalSlurm
from training_job import TrainingJob


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalSlurm]:
    """One SLURM for all tests."""
    with LocalSlurm() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def undisturbed(
    cluster: LocalSlurm, tmp_path_factory: pytest.TempPathFactory, small_corpus: Path
) -> TrainingJob:
    """A run that nobody disturbs, finished."""
    run = TrainingJob(cluster, tmp_path_factory.mktemp("undisturbed"), small_corpus)
    run.finish()
    return run
