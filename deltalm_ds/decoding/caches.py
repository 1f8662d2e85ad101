"""Keys and values of the sentences that are being decoded, and which of them each hypothesis sees."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalm_ds.model import PackedTokens

_HIDDEN = float("-inf")
_FIRST_STEPS = 16
"""Steps that the first slots are enough for."""
_ROOM_UNIT = 8
"""Rows of a mask begin at a multiple of 16 bytes, as torch's kernels for GPUs want it."""


class Moves:
    """Sentences leave: the last of those that stay take the places of those that leave, the rest stays put."""

    def __init__(self, stays: list[bool], device: torch.device) -> None:
        num_left = sum(stays)
        places = list(range(num_left))
        self._holes = [place for place in places if not stays[place]]
        self._fillers = [place for place in range(num_left, len(stays)) if stays[place]]
        for hole, filler in zip(self._holes, self._fillers, strict=True):
            places[hole] = filler
        self._places = places
        self._index, self._to, self._from = (
            torch.tensor(part, dtype=torch.int64, device=device)
            for part in (places, self._holes, self._fillers)
        )

    def in_place(self, tensor: Tensor) -> Tensor:
        """What is left of [sentences, …]: a part of the tensor itself, with no more than the holes filled."""
        if self._holes:
            tensor[self._to] = tensor[self._from]
        return tensor[: len(self._places)]

    def picked(self, tensor: Tensor) -> Tensor:
        """The same as a new tensor."""
        return tensor[self._index]

    def of_list(self, values: list[int]) -> list[int]:
        """The same of a list with a value a sentence."""
        return [values[place] for place in self._places]


class Memory:
    """Keys and values of the encoder's output, padded to the longest source."""

    def __init__(self, source: PackedTokens, projected: list[Tensor], heads: tuple[int, int]) -> None:
        """projected: for each cross-attention keys and values [source_tokens, 2 * width]."""
        num_sentences, longest = len(source.sample_ids), source.max_length
        rows, columns = source.sequence_of_token, source.index_in_sequence
        self._lengths = source.lengths.tolist()
        self._layers = []
        for joined in projected:
            padded = joined.new_zeros(2, num_sentences, heads[0], longest, heads[1])
            # Advanced indices apart from each other put the tokens first: [tokens, 2, heads, head_width].
            padded[:, rows, :, columns] = joined.unflatten(1, (2, *heads))
            self._layers.append(padded.unbind(0))
        self.seen = projected[0].new_full((num_sentences, 1, 1, longest), _HIDDEN)
        """[sentences, 1, 1, longest], added to scores."""
        self.seen[rows, 0, 0, columns] = 0

    def of(self, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values [sentences, heads, longest, head_width] of a cross-attention."""
        return self._layers[number]

    def leave(self, moves: Moves) -> None:
        """Only some sentences are left."""
        self._lengths = moves.of_list(self._lengths)
        longest = max(self._lengths)
        self._layers = [
            (moves.in_place(keys)[:, :, :longest], moves.in_place(values)[:, :, :longest])
            for keys, values in self._layers
        ]
        self.seen = moves.in_place(self.seen)[..., :longest]


class DecodingState:
    """All that a step of the decoder reads of the steps before."""

    def __init__(self, memory: Memory, num_self_attentions: int, heads: tuple[int, int], beam: int) -> None:
        self.memory = memory
        self.step = 0
        """Tokens that have been read of each hypothesis."""
        self._heads = heads
        self._beam = beam
        self._num_hypotheses = 1
        self._num_slots = 0
        num_sentences = len(memory.seen)
        self._seen = memory.seen.new_empty(num_sentences, 1, beam, 0)
        caches = memory.seen.new_empty(num_self_attentions, 2, num_sentences, heads[0], 0, heads[1])
        self._layers = [(keys, values) for keys, values in caches]

    @property
    def seen_slots(self) -> Tensor:
        """[sentences, 1, hypotheses, slots], added to scores."""
        return self._seen[:, :, : self._num_hypotheses, : self._num_slots]

    def add_slots(self) -> None:
        """Make room for a token of each hypothesis, seen by that hypothesis alone."""
        num_new = self._num_hypotheses
        if self._num_slots + num_new > self._seen.shape[3]:
            self._renew_slots()
        self._num_slots += num_new
        own = self._seen.new_full((num_new, num_new), _HIDDEN).fill_diagonal_(0)
        self._seen[:, 0, :num_new, self._num_slots - num_new : self._num_slots] = own

    def by_sentence(self, joined: Tensor, num_parts: int) -> tuple[Tensor, ...]:
        """[rows, parts * width] to `num_parts` of [sentences, heads, hypotheses, head_width]."""
        shape = (len(self._seen), self._num_hypotheses, num_parts, *self._heads)
        return joined.view(shape).permute(2, 0, 3, 1, 4).unbind(0)

    def append(self, number: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys and values into the new slots; all of that self-attention's up to now."""
        keys, values = (tensor[:, :, : self._num_slots] for tensor in self._layers[number])
        keys[:, :, -self._num_hypotheses :], values[:, :, -self._num_hypotheses :] = key, value
        return keys, values

    def reorder(self, parents: Tensor) -> None:
        """Hypothesis h of each sentence continues hypothesis parents[sentence, h] from now on."""
        seen = self._seen[..., : self._num_slots]
        index = parents[:, None, :, None].expand(-1, -1, -1, self._num_slots)
        self._num_hypotheses = parents.shape[1]
        seen[:, :, : self._num_hypotheses] = seen.gather(2, index)

    def leave(self, moves: Moves) -> None:
        """Only some sentences are left."""
        self.memory.leave(moves)
        self._seen = moves.in_place(self._seen)
        self._layers = [(moves.in_place(keys), moves.in_place(values)) for keys, values in self._layers]

    def _renew_slots(self) -> None:
        """Drop the slots that no hypothesis sees any more, and make room for as many again."""
        seen = self.seen_slots
        used = (seen[:, 0] == 0).any(1)  # [sentences, slots]
        self._num_slots = int(used.sum(1).max()) if self._num_slots else 0
        # A sentence with fewer keeps some slots that nothing sees.
        kept = used.logical_not().sort(dim=1, stable=True).indices[:, : self._num_slots]
        room = -(-max(2 * self._num_slots, _FIRST_STEPS * self._beam) // _ROOM_UNIT) * _ROOM_UNIT
        seen = self._seen.new_empty(*self._seen.shape[:3], room)
        index = kept[:, None, None].expand(-1, -1, seen.shape[2], -1)
        seen[..., : self._num_slots] = self._seen.gather(3, index)
        self._seen = seen
        self._layers = [
            (_renewed(keys, kept, room), _renewed(values, kept, room)) for keys, values in self._layers
        ]


def _renewed(slots: Tensor, kept: Tensor, room: int) -> Tensor:
    """Slots `kept` [sentences, n] of [sentences, heads, slots, head_width], with room for others behind."""
    renewed = slots.new_empty(*slots.shape[:2], room, slots.shape[3])
    index = kept[:, None, :, None].expand(-1, slots.shape[1], -1, slots.shape[3])
    renewed[:, :, : kept.shape[1]] = slots.gather(2, index)
    return renewed
