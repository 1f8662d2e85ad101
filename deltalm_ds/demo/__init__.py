"""The embedded sample: a small corpus that this project wrote, to try everything on without downloads.

Ten languages and twelve pairs of them. Nearly all of it is made from frames (`frames.py`) and phrase tables
(`phrases/`), the rest are a few free paragraphs a language (`paragraphs/`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deltalm_ds.demo.draws import Draws
from deltalm_ds.demo.frames import draw_document
from deltalm_ds.demo.languages import LANGUAGES, Language
from deltalm_ds.files import write_text_atomically

PAIRS = (
    *(("en", code) for code in LANGUAGES if code != "en"),
    ("de", "fr"),
    ("es", "pt"),
    ("ru", "zh"),
)
NUM_DOCUMENTS = 350
"""Made-up stories a language."""
NUM_PAIR_DOCUMENTS = 110
"""Made-up stories a language pair, each giving 4 to 9 sentence pairs."""


def write_sample(directory: Path, seed: int = 0) -> None:
    """Write the sample under `directory`, in the forms that `deltalm_ds.prepare` reads.

    `mono/LANGUAGE.txt`: one sentence a line, documents parted by a blank line. `pairs/en-de/train.en` and
    `train.de`: line-aligned sentences. The same seed gives the same bytes.
    """
    languages = {code: Language(code) for code in LANGUAGES}
    for language in languages.values():
        documents = ["\n".join(document) + "\n" for document in monolingual_documents(language, seed)]
        path = directory / "mono" / f"{language.code}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, "\n".join(documents))
    for source, target in PAIRS:
        pairs = list(sentence_pairs(languages[source], languages[target], seed))
        folder = directory / "pairs" / f"{source}-{target}"
        folder.mkdir(parents=True, exist_ok=True)
        for side, code in enumerate((source, target)):
            write_text_atomically(folder / f"train.{code}", "".join(f"{pair[side]}\n" for pair in pairs))


def monolingual_documents(language: Language, seed: int) -> Iterator[list[str]]:
    """The free paragraphs, then stories that no other language tells, each a list of sentences."""
    yield from language.paragraphs()
    for position in range(NUM_DOCUMENTS):
        frames = draw_document(Draws(seed, f"mono/{language.code}", position), language.keys())
        yield [language.sentence(frame) for frame in frames]


def sentence_pairs(source: Language, target: Language, seed: int) -> Iterator[tuple[str, str]]:
    """The free paragraphs and stories in two languages, sentence by sentence."""
    for source_paragraph, target_paragraph in zip(source.paragraphs(), target.paragraphs(), strict=True):
        yield from zip(source_paragraph, target_paragraph, strict=True)
    for position in range(NUM_PAIR_DOCUMENTS):
        draws = Draws(seed, f"pairs/{source.code}-{target.code}", position)
        for frame in draw_document(draws, source.keys()):
            yield source.sentence(frame), target.sentence(frame)
