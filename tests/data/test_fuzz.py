"""Arbitrary bytes as .idx, .bin and manifest.json: a dataset or one clear error, and no large allocation."""

from __future__ import annotations

import json
import struct
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_corpus import write_corpus

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.indexed import IndexedDataset
from deltalm_ds.data.windows import MonolingualWindows, PairWindows
from deltalm_ds.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
LARGEST_ALLOCATION = 4 << 20

headers = st.builds(
    lambda magic, version, code, sequences, indices: (
        magic + struct.pack("<QBQQ", version, code, sequences, indices)
    ),
    st.sampled_from([MAGIC, MAGIC[:-1] + b"\x01"]),
    st.sampled_from([0, 1, 2, 2**64 - 1]),
    st.integers(0, 10),
    st.one_of(st.integers(0, 8), st.integers(0, 2**64 - 1)),
    st.one_of(st.integers(0, 8), st.integers(0, 2**64 - 1)),
)
small = st.one_of(st.integers(-2, 12), st.integers(-(2**31), 2**31 - 1))


@st.composite
def indices(draw: st.DrawFn) -> bytes:
    """An index whose counts fit its size, holding any numbers: what the checks of sizes let through."""
    lengths = draw(st.lists(small, max_size=6))
    pointers = draw(st.lists(small, min_size=len(lengths), max_size=len(lengths)))
    documents = draw(st.lists(small, min_size=1, max_size=6))
    header = MAGIC + struct.pack("<QBQQ", 1, draw(st.sampled_from([4, 8])), len(lengths), len(documents))
    return (
        header
        + np.array(lengths, "<i4").tobytes()
        + np.array(pointers, "<i8").tobytes()
        + np.array(documents, "<i8").tobytes()
    )


def read_everything(prefix: Path) -> None:
    dataset = IndexedDataset(prefix)
    for index in range(dataset.num_sequences):
        dataset.sequence(index)
    for number in range(dataset.num_documents):
        dataset.document(number)
    windows = [MonolingualWindows(dataset, 7, 1000), PairWindows(dataset, 7, 9, 1000)]
    for window in windows:
        items = np.arange(min(window.num_items, 50))
        window.num_tokens(items)
        for item in items.tolist():
            assert len(window.tokens(item)) <= 9
    dataset.check()


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.binary(max_size=200), indices(), st.tuples(headers, st.binary(max_size=100)).map(b"".join)),
    st.binary(max_size=64),
)
def test_any_index_is_read_or_refused(index: bytes, tokens: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "x"
        prefix.with_suffix(".idx").write_bytes(index)
        prefix.with_suffix(".bin").write_bytes(tokens)
        said: list[str] = []
        tracemalloc.start()
        try:
            read_everything(prefix)
        except UserError as error:
            said.append(str(error))
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < LARGEST_ALLOCATION
        assert not any("\n" in message for message in said)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "data"
    return write_corpus(folder, {"fr": [[[0, 5, 6, 2]], [[0, 7, 2]]], "en-fr": [[[0, 5, 2], [6, 2]]]})


def places(content: Any, place: tuple = ()) -> list[tuple]:
    """The path to every value of a JSON document."""
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [place, *(found for key, value in inner for found in places(value, (*place, key)))]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_manifest_is_read_or_refused(corpus: Path, data: st.DataObject) -> None:
    """A value of the manifest is replaced by any other, or the text is cut or a byte of it changed."""
    whole = (corpus / "manifest.json").read_bytes()
    content = json.loads(whole)
    if data.draw(st.booleans()):
        place = data.draw(st.sampled_from(places(content)[1:]))
        target = content
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = data.draw(json_values)
        text = json.dumps(content).encode()
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        text = whole[:at] + data.draw(st.binary(max_size=2)) + whole[at + data.draw(st.integers(0, 40)) :]
    (corpus / "manifest.json").write_bytes(text)
    said: list[str] = []
    try:
        Corpus.open(corpus, verify=True)
    except UserError as error:
        said.append(str(error))
    finally:
        (corpus / "manifest.json").write_bytes(whole)
    assert not any("\n" in message for message in said)


def test_a_manifest_nested_without_end_and_one_without_end_are_refused(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (corpus / "manifest.json").read_bytes()
    try:
        (corpus / "manifest.json").write_bytes(b"[" * 200_000)
        with pytest.raises(UserError, match="not usable"):
            Corpus.open(corpus)
        monkeypatch.setattr("deltalm_ds.data.manifest.MAX_BYTES", 10)
        with pytest.raises(UserError, match="is no manifest"):
            Corpus.open(corpus)
    finally:
        (corpus / "manifest.json").write_bytes(whole)
