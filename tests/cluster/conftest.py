"""One SLURM for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from local_slurm import LocalSlurm


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalSlurm]:
    # mpirun asks whether root means it.
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    with LocalSlurm(environment={"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", **root}) as slurm:
        yield slurm
