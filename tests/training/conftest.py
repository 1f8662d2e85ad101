from pathlib import Path

import pytest

from deltalm_ds.demo import write_sample
from deltalm_ds.prepare import PrepareSettings, prepare


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
