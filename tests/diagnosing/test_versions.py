from __future__ import annotations

from pathlib import Path

import torch

from deltalm_ds.diagnosing.versions import content_hash, versions


def test_one_byte_and_one_name_change_the_hash_and_caches_do_not(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "code.py").write_text("one")
    (tmp_path / "__pycache__").mkdir()
    first = content_hash(tmp_path)
    (tmp_path / "__pycache__" / "code.pyc").write_text("compiled")
    assert content_hash(tmp_path) == first
    (tmp_path / "part" / "code.py").write_text("two")
    second = content_hash(tmp_path)
    (tmp_path / "part" / "code.py").rename(tmp_path / "code.py")
    assert len({first, second, content_hash(tmp_path)}) == 3


def test_versions() -> None:
    found = versions()
    assert list(found) == ["python", "torch", "deepspeed", "CUDA", "NCCL", "GPUs", "deltalm_ds"]
    assert found["torch"] == torch.__version__
    assert len(found["deltalm_ds"]) == 12
