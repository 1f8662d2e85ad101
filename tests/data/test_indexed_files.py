"""Datasets written range by range are the same as those written whole."""

from __future__ import annotations

import random
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalm_ds.data.indexed_files import IndexedFiles, IndexedWriter


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2).flatmap(
        lambda sequences: st.lists(
            st.lists(st.integers(0, 9), min_size=sequences, max_size=sequences), max_size=12
        )
    ),
    st.lists(st.integers(0, 12), max_size=4),
    st.sampled_from([np.uint16, np.int32]),
    st.randoms(use_true_random=False),
)
def test_any_ranges_in_any_order(
    lengths: list[list[int]], cuts: list[int], dtype: type, order: random.Random
) -> None:
    tokens = np.arange(sum(map(sum, lengths)), dtype=dtype)
    num_sequences = len(lengths[0]) if lengths else 1
    shape = np.array(lengths, dtype=np.int32).reshape(-1, num_sequences)
    starts = np.concatenate([[0], np.cumsum(shape.sum(axis=1))])
    with tempfile.TemporaryDirectory() as folder:
        with IndexedWriter(Path(folder) / "whole", dtype) as writer:
            for start, row in zip(starts.tolist(), lengths, strict=False):
                ends = (start + np.cumsum([0, *row])).tolist()
                writer.add_document([tokens[a:b] for a, b in pairwise(ends)])
        files = IndexedFiles(
            Path(folder) / "parts", np.dtype(dtype), len(lengths), num_sequences, len(tokens)
        )
        files.create()
        edges = sorted({0, len(lengths), *(cut for cut in cuts if cut < len(lengths))})
        ranges = list(pairwise(edges))
        order.shuffle(ranges)
        for first, end in [*ranges, *ranges[:1]]:  # one of them twice, as after a kill
            files.create()  # keeps what is there
            content = tokens[starts[first] : starts[end]].tobytes()
            files.write(first, int(starts[first]), content, shape[first:end])
        for suffix in (".bin", ".idx"):
            whole, parts = (Path(folder) / f"{name}{suffix}" for name in ("whole", "parts"))
            assert whole.read_bytes() == parts.read_bytes()
        assert files.bin_bytes == (Path(folder) / "parts.bin").stat().st_size
        assert files.idx_bytes == (Path(folder) / "parts.idx").stat().st_size


def test_only_integers_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="integers"):
        IndexedFiles(tmp_path / "x", np.dtype(np.float32), 1, 1, 1).create()
