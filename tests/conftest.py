import fcntl
from pathlib import Path

import pytest
from on_cpu import KernelsOnCPU, compile_kernels

from deltalm_ds.demo import write_sample
from deltalm_ds.prepare import PrepareSettings, prepare


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


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory) -> Path:
    """Three languages and one pair of the embedded sample, prepared."""
    folder = tmp_path_factory.mktemp("small_corpus")
    write_sample(folder / "text")
    text = folder / "text"
    prepare(
        PrepareSettings(
            inputs=(
                *(text / "mono" / f"{code}.txt" for code in ("de", "en", "ru")),
                text / "pairs" / "en-de",
            ),
            output=folder / "data",
            vocabulary_size=1200,
            workers=1,
        ),
        lambda line: None,
    )
    return folder / "data"
