"""A checkpoint as read, and how it fills a model: every tensor used or knowingly left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM
from deltalm_ds.model.config import DecoderForm, DeltaLMConfig
from deltalm_ds.model.new_weights import NewWeights
from deltalm_ds.weights.cross_attention import CrossAttentionStart
from deltalm_ds.weights.names import parameter_shapes
from deltalm_ds.weights.report import Report
from deltalm_ds.weights.stored import StoredWeights

TOKEN_TABLE = "embedding.weight"

DROPOUT_FIELDS = frozenset({"dropout", "attention_dropout", "activation_dropout"})
"""What may differ from run to run; every other field of a configuration belongs to the weights."""

PUBLISHED_HEADS = {768: 12, 1024: 16}
"""Width → attention heads of the published base and large models of every family read here.

No shape shows the number of heads, and a wrong one computes nonsense without an error: no other is guessed.
"""


@dataclass
class Source:
    """The tensors of a checkpoint under its own names, with what they say about the model's shape.

    Layouts derive from it and answer `source_of`.
    """

    path: Path
    """File or folder, for messages."""
    layout: str
    """What was recognised, in words."""
    tensors: dict[str, Tensor]
    """Everything in the checkpoint, by its own names."""
    known: dict[str, Any]
    """Fields of DeltaLMConfig that these tensors fix; another value is refused."""
    suggested: dict[str, Any]
    """Fields that the tensors leave open, with the value taken when nobody says otherwise."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Tensors that have no place in DeltaLM, with the reason."""
    remarks: list[str] = field(default_factory=list)
    """For the report."""
    has_sentinels: bool = True
    """Whether rows for the sentinels may be in the token table already."""

    def source_of(self, parameter: str, decoder: DecoderForm) -> str:
        """The name of the tensor that fills our `parameter` in a model with this form of decoder."""
        raise NotImplementedError

    def draws_cross_attention(self, decoder: DecoderForm, start: CrossAttentionStart | None) -> bool:
        """Whether the decoder's cross-attention is drawn, for no tensor is to fill it.

        UserError where a `start` is asked for and the checkpoint decides.
        """
        if start is not None:
            raise UserError(
                f"{self.path}: has a decoder's cross-attention ({self.layout}), so nobody can choose what it "
                "starts from; leave the start of cross-attention out"
            )
        return False

    def remarks_on(self, config: DeltaLMConfig) -> list[str]:
        """What the report should say about filling a model of this shape."""
        return self.remarks

    def resolve(self, config: DeltaLMConfig | None, overrides: Mapping[str, Any]) -> DeltaLMConfig:
        """The configuration of the model to fill: `config` or the checkpoint's own, `overrides` on top.

        UserError where a value contradicts the checkpoint, or where nobody knows how many heads there are.
        """
        wanted = config.to_dict() if config else {**self.suggested, **self.known}
        wanted |= overrides
        if "num_heads" not in wanted:
            if wanted["width"] not in PUBLISHED_HEADS:
                raise UserError(
                    f"{self.path}: the file does not say how many attention heads the model has, and width "
                    f"{wanted['width']} is no published size; give num_heads"
                )
            wanted["num_heads"] = PUBLISHED_HEADS[wanted["width"]]
        for name, value in self.known.items():
            if wanted[name] != value:
                raise UserError(
                    f"{self.path}: the checkpoint has {name} {value}, but {wanted[name]} was asked for; "
                    f"leave {name} to the checkpoint or choose another checkpoint"
                )
        return DeltaLMConfig(**wanted)

    def fill(
        self, config: DeltaLMConfig, seed: int, cross_attention_start: CrossAttentionStart | None = None
    ) -> tuple[StoredWeights, Report]:
        """Every parameter of a model of shape `config`, and the map of what went where.

        Files that can be mapped are: their tensors are read when the weights are.
        New token rows are drawn from N(0, 1 / width) with `seed`, and so is the cross-attention that starts
        from nothing, as in a new model.
        UserError names whatever is missing, left over or of another shape.
        """
        draws_cross_attention = self.draws_cross_attention(config.decoder, cross_attention_start)
        if config.num_encoder_layers + config.num_decoder_layers > len(self.tensors):
            # Before every parameter of theirs gets a name here.
            raise UserError(
                f"{self.path}: not a whole {self.layout}: {len(self.tensors)} tensors can't fill "
                f"{config.num_encoder_layers} encoder layers and {config.num_decoder_blocks} decoder blocks; "
                "take another copy of it or ask for fewer"
            )
        shapes = parameter_shapes(config)
        origins = {
            parameter: self.source_of(parameter, config.decoder)
            for parameter in shapes
            if not (draws_cross_attention and ".cross_attention." in parameter)
        }
        missing = [name for name in dict.fromkeys(origins.values()) if name not in self.tensors]
        if missing:
            raise UserError(
                f"{self.path}: not a whole {self.layout}: lacks {_some(missing)}; take another copy of it"
            )
        unmatched = sorted(self.tensors.keys() - set(origins.values()) - self.left_out.keys())
        if unmatched:
            raise UserError(
                f"{self.path}: {_some(unmatched)} has no place in DeltaLM; if it can go, save the "
                f"checkpoint without it ({self.layout})"
            )
        for parameter, name in origins.items():
            self._check_tensor(parameter, name, shapes[parameter])
        remarks = self.remarks_on(config)
        drawn = None
        if draws_cross_attention:
            with torch.device("meta"):
                drawn = NewWeights(DeltaLM(config), seed)
            remark = f"new: cross-attention of every decoder layer, as in a new model, seed {seed}"
            remarks = [remark, *remarks]
        tensors: dict[str, tuple[Tensor, ...]] = {
            parameter: (self.tensors[name],) for parameter, name in origins.items()
        }
        tensors[TOKEN_TABLE], about_rows = self._token_table(self.tensors[origins[TOKEN_TABLE]], config, seed)
        remarks = [*about_rows, *remarks]
        if "num_heads" not in self.known:
            remarks = [*remarks, f"attention heads: {config.num_heads}, which the file does not say"]
        report = Report(self.path, self.layout, origins, self.left_out, tuple(remarks))
        return StoredWeights(tensors, drawn), report

    def _check_tensor(self, parameter: str, name: str, shape: tuple[int, ...]) -> None:
        """UserError unless tensor `name` can fill `parameter` [`shape`]."""
        tensor = self.tensors[name]
        if not tensor.is_floating_point():
            raise UserError(f"{self.path}: {name} holds {tensor.dtype}, not floating-point numbers")
        found = tuple(tensor.shape)
        if parameter == TOKEN_TABLE and "vocabulary_rows" not in self.known:
            found = (shape[0], *found[1:])  # `_token_table` decides about its rows
        if found != shape:
            raise UserError(
                f"{self.path}: {name} has shape {list(tensor.shape)}, but {parameter} needs {list(shape)}; "
                "take another copy of the checkpoint"
            )

    def _token_table(
        self, table: Tensor, config: DeltaLMConfig, seed: int
    ) -> tuple[tuple[Tensor, ...], list[str]]:
        """`table` [rows, width], new rows for behind it if the model has more, and what to report.

        Rows are only added where the table ends with the tokenizer's pieces or with `<mask>`: anywhere else
        words and sentinels would trade places in silence.
        """
        rows = len(table)
        if self.has_sentinels and rows == config.vocabulary_rows:
            return (table,), []
        if rows not in (config.mask_id, config.mask_id + 1) or rows > config.first_sentinel_id:
            raise UserError(
                f"{self.path}: the checkpoint's token table has {rows} rows; a model of "
                f"{config.vocabulary_rows} rows with <mask> at {config.mask_id} and sentinels from "
                f"{config.first_sentinel_id} can't start from it; use the tokenizer that belongs to it"
            )
        num_new = config.vocabulary_rows - rows
        if not num_new:
            return (table,), []
        generator = torch.Generator().manual_seed(seed)
        new = torch.randn(num_new, table.shape[1], generator=generator) * config.width**-0.5
        remark = f"new: embedding rows {rows}..{rows + num_new - 1}, from N(0, 1/width), seed {seed}"
        return (table, new), [remark]


def fixed_fields(config: DeltaLMConfig) -> dict[str, Any]:
    """The fields of `config` that belong to the weights."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in DROPOUT_FIELDS}


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
