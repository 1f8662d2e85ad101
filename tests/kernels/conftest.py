import pytest
from on_cpu import KernelsOnCPU, compile_kernels


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The kernels, compiled once for a process of the tests."""
    return KernelsOnCPU(compile_kernels(tmp_path_factory.mktemp("kernels")))


@pytest.fixture(params=[0, 7], ids=["ascending threads", "shuffled threads"])
def kernels(request, compiled):
    """The kernels on the CPU in both orders of threads."""
    compiled.shuffle_threads(request.param)
    yield compiled
    compiled.shuffle_threads(0)
