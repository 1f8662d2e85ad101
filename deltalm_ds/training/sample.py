"""The embedded sample as a prepared folder, made on first use."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from deltalm_ds.demo import write_sample
from deltalm_ds.prepare import PrepareSettings, prepare

PREPARED_SAMPLE = Path("data/sample")
_PIECES = 4_000


def prepared_sample(say: Callable[[str], object]) -> Path:
    """The prepared sample's folder; where it is missing, the text is written and prepared first."""
    if PREPARED_SAMPLE.exists():
        return PREPARED_SAMPLE
    say(f"no --data: preparing the sample corpus in {PREPARED_SAMPLE}")
    with tempfile.TemporaryDirectory() as text:
        write_sample(Path(text))
        settings = PrepareSettings(
            inputs=(Path(text),),
            output=PREPARED_SAMPLE,
            vocabulary_size=_PIECES,
            character_coverage=1.0,
            validation_share=0.03,
            workers=1,
        )
        prepare(settings, lambda line: None)
    return PREPARED_SAMPLE
