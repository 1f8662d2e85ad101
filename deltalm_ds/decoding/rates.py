"""How fast text is generated, and how much time is left."""

from __future__ import annotations

from deltalm_ds.decoding.remarks import Counts
from deltalm_ds.progress import Progress
from deltalm_ds.ranks import Ranks


class GenerationProgress(Progress):
    """Progress in bytes of input, with sentences and tokens a second of all ranks.

    Ranks tell each other bytes alone: the others' sentences are taken to be as long as this one's.
    """

    def __init__(self, total: int | None, ranks: Ranks) -> None:
        super().__init__("generating", total, ranks)
        self._num_bytes = 0
        self._counts = Counts()

    def add(self, num_bytes: int, counts: Counts) -> None:
        """Count a chunk as done on this rank."""
        self._num_bytes += num_bytes
        self._counts.add(counts)
        self.update(num_bytes)

    def remark(self, seconds: float, num_bytes: int) -> str:
        """Sentences and tokens a second."""
        share = num_bytes / self._num_bytes if self._num_bytes else 0.0
        return rates(share * self._counts.num_sentences, share * self._counts.num_tokens, seconds)


def rates(num_sentences: float, num_tokens: float, seconds: float) -> str:
    """Both a second, in words."""
    seconds = max(seconds, 1e-9)
    return f"{num_sentences / seconds:,.1f} sentences/s, {num_tokens / seconds:,.0f} tokens/s"
