import fcntl

import pytest
from on_cpu import KernelsOnCPU, compile_kernels


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The kernels' library for the CPU, compiled by the first of xdist's processes to need it."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if base.name.startswith("popen-") else base
    with (folder / "kernels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / "kernels.so"
        return path if path.exists() else compile_kernels(folder)


@pytest.fixture(scope="session")
def compiled(library):
    """The kernels on the CPU."""
    return KernelsOnCPU(library)


@pytest.fixture(params=[0, 7], ids=["ascending threads", "shuffled threads"])
def kernels(request, compiled):
    """The kernels on the CPU in both orders of threads."""
    compiled.shuffle_threads(request.param)
    yield compiled
    compiled.shuffle_threads(0)
