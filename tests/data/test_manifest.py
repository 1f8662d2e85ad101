"""manifest.json: strict reading and the fingerprint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deltalm_ds.data.manifest import Manifest, SourceEntry, TokenizerEntry
from deltalm_ds.errors import UserError
from deltalm_ds.text.vocabulary import Vocabulary

GOLDEN_FINGERPRINT = "2e77af7134081b9cce8c74728a89fefd19ce873dd44670089025c776533068f8"
"""Pinned, since a resumed run compares it: another value here orphans every checkpoint."""


def made_manifest() -> Manifest:
    def source(name: str, *languages: str) -> SourceEntry:
        return SourceEntry(
            name=name,
            kind="pairs" if len(languages) == 2 else "monolingual",
            languages=languages,
            split="train",
            prefix=f"train/{name}",
            documents=2,
            sequences=2 * len(languages),
            tokens=30,
            bin_bytes=60,
            idx_bytes=82,
            bin_sha256="b" * 64,
            idx_sha256="i" * 64,
        )

    return Manifest(
        tokenizer=TokenizerEntry.of("tokenizer.model", "a" * 64, Vocabulary(1000, 50)),
        dtype="uint16",
        seed=3,
        recipe="r",
        sources=(source("fr", "fr"), source("en-zh-Hant", "en", "zh-Hant")),
    )


def test_written_and_read(tmp_path: Path) -> None:
    manifest = made_manifest()
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert manifest.tokenizer.vocabulary == Vocabulary(1000, 50)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["fingerprint"] == manifest.fingerprint
    assert (content["format"], content["version"]) == ("deltalm-ds corpus", 2)


def test_the_fingerprint_is_of_the_data_alone() -> None:
    manifest = made_manifest()
    assert manifest.fingerprint == GOLDEN_FINGERPRINT
    assert replace(manifest, recipe="other").fingerprint == manifest.fingerprint
    first, second = manifest.sources
    for changed in (
        replace(manifest, seed=4),
        replace(manifest, sources=(first,)),
        replace(manifest, sources=(replace(first, bin_sha256="c" * 64), second)),
        replace(manifest, sources=(replace(first, weight=2.0), second)),
        replace(manifest, tokenizer=replace(manifest.tokenizer, sha256="c" * 64)),
    ):
        assert changed.fingerprint != manifest.fingerprint


def edit(change: Callable[[dict[str, Any]], object]) -> str:
    content = json.loads(made_manifest().to_json())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not usable"),
        ("[]", "not a manifest"),
        (edit(lambda m: m.update(format="other")), "not a manifest"),
        (edit(lambda m: m.update(version=1)), "only version 2"),
        (edit(lambda m: m.update(seed=5)), "fingerprint is not that of its contents"),
        (edit(lambda m: m.update(seed=-1)), "seed is -1"),
        (edit(lambda m: m.update(seed=True)), "seed is True"),
        (edit(lambda m: m.update(extra=1)), "extra"),
        (edit(lambda m: m.pop("dtype")), "dtype"),
        (edit(lambda m: m.update(dtype="int32")), "not int32"),
        (edit(lambda m: m.update(sources={})), "sources is not a list"),
        (edit(lambda m: m["sources"].append(3)), "SourceEntry"),
        (edit(lambda m: m["sources"].append(m["sources"][0])), "listed twice"),
        (edit(lambda m: m["sources"][0].update(prefix="../fr")), "leads out"),
        (edit(lambda m: m["sources"][0].update(prefix="/etc/fr")), "leads out"),
        (edit(lambda m: m["sources"][0].update(kind="other")), "no kind 'other'"),
        (edit(lambda m: m["sources"][0].update(languages=["en", "fr"])), "monolingual with the languages"),
        (edit(lambda m: m["sources"][0].update(languages="fr")), "languages is 'fr'"),
        (edit(lambda m: m["tokenizer"].update(mask_id=5)), "not 5"),
        (edit(lambda m: m["tokenizer"].update(num_pieces=0)), "num_pieces"),
        (edit(lambda m: m["tokenizer"].update(file="../x.model")), "leads out"),
    ],
)
def test_damaged_manifests_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        Manifest.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a prepared folder"):
        Manifest.read(tmp_path)
    with pytest.raises(UserError, match="is not a prepared folder"):
        Manifest.read(tmp_path / "missing")
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        Manifest.read(tmp_path)
