"""Both implementations of the operations: the torch reference and the C kernels."""

import pytest

from deltalm_ds.ops.native import kernels
from deltalm_ds.ops.native.library import library


@pytest.fixture(params=["torch", "native"])
def implementation(request, monkeypatch):
    """Run a test once with each."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "support", lambda *tensors: False)
    elif library() is None:
        pytest.skip("no C compiler here")
    return request.param
