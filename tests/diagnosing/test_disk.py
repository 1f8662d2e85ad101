from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest import mock

import pytest
from small_disk import small_disk

from deltalm_ds.diagnosing.disk import measure_disk

MEGABYTE = 10**6


def test_what_is_measured_and_nothing_left(tmp_path: Path) -> None:
    with mock.patch("os.fsync", wraps=os.fsync) as synced:
        disk = measure_disk(tmp_path, 9 * MEGABYTE)
    assert synced.call_count == 1
    assert disk["write_bytes_per_second"] > 0
    assert disk["read_bytes_per_second"] > 0
    assert disk["free_bytes"] > 9 * MEGABYTE
    assert list(tmp_path.iterdir()) == []


def test_the_speed_is_bytes_by_seconds(tmp_path: Path) -> None:
    """Two blocks: the clock is read before and after writing, and around each reading."""
    with mock.patch("time.perf_counter", side_effect=[0.0, 2.0, 10.0, 10.5, 20.0, 20.5]):
        disk = measure_disk(tmp_path, 8 * MEGABYTE)
    assert disk["write_bytes_per_second"] == 8 * MEGABYTE / 2
    assert disk["read_bytes_per_second"] == 8 * MEGABYTE / 1


def test_a_folder_to_come_is_measured_where_it_will_be(tmp_path: Path) -> None:
    measure_disk(tmp_path / "runs" / "new", MEGABYTE)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "2m") as folder:
        with pytest.raises(OSError, match="No space left") as caught:
            measure_disk(folder, 8 * MEGABYTE)
        assert caught.value.errno == errno.ENOSPC
        assert list(folder.iterdir()) == []


def test_other_bytes_than_were_written_are_found(tmp_path: Path) -> None:
    def read(descriptor: int, num_bytes: int) -> bytes:
        return bytes([1, *os.pread(descriptor, num_bytes, 0)[1:]])

    with mock.patch("os.read", read), pytest.raises(RuntimeError, match="other bytes than were written"):
        measure_disk(tmp_path, MEGABYTE)
