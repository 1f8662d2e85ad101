"""What every downstream task is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DownstreamExample:
    """A text and what should become of it."""

    source: str
    """What the model reads, without language tag."""
    targets: tuple[str, ...]
    """What it should write: one text, or several that are equally right. Training uses each of them."""
    source_language: str
    """Code as the user gives it, "fr", "zh-Hant"."""
    target_language: str
    """The same of the targets."""
    id: str = ""
    """The example's name in its file, or ""."""
    group: str = ""
    """What scores are also shown by, a category for example, or ""."""

    @property
    def direction(self) -> str:
        """ "en-fr": source and target language."""
        return f"{self.source_language}-{self.target_language}"
