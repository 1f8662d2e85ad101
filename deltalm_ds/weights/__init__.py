"""Starting weights: reading every checkpoint layout that can become a DeltaLM, and writing our own.

Needs torch and safetensors, and never unpickles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.new_weights import whole
from deltalm_ds.weights.cross_attention import CrossAttentionStart
from deltalm_ds.weights.description import Description, TaskDescription, read_description
from deltalm_ds.weights.encoder import save_encoder
from deltalm_ds.weights.layouts import read_source
from deltalm_ds.weights.names import parameter_shapes
from deltalm_ds.weights.own import save_own
from deltalm_ds.weights.report import Report
from deltalm_ds.weights.stored import OnDemand, StoredWeights

__all__ = [
    "CrossAttentionStart",
    "Description",
    "Loaded",
    "OnDemand",
    "Report",
    "StoredWeights",
    "TaskDescription",
    "load_pretrained",
    "parameter_shapes",
    "read_description",
    "save_encoder",
    "save_own",
]


@dataclass(frozen=True)
class Loaded:
    """Weights ready for a `DeltaLM(config)`."""

    config: DeltaLMConfig
    """The shape of the model that the weights fill."""
    weights: StoredWeights
    """Every parameter, left in the file until it is read, where the file can be mapped."""
    report: Report
    """What went where; print it."""

    @cached_property
    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter, fp32, on the CPU, each in memory of its own: for `load_state_dict`."""
        shapes = parameter_shapes(self.config)
        return {name: whole(self.weights, name, shape) for name, shape in shapes.items()}


def load_pretrained(
    path: str | Path,
    config: DeltaLMConfig | None = None,
    *,
    seed: int = 0,
    cross_attention_start: CrossAttentionStart | None = None,
    **overrides: Any,
) -> Loaded:
    """Read the checkpoint at `path`, whatever its layout, and fill a DeltaLM from it.

    Layouts: our own folder; XLM-R or InfoXLM as a Hugging Face folder or a fairseq file; a released DeltaLM
    file; a DeltaLM file fine-tuned with fairseq. The model's shape is the checkpoint's own. `config` replaces
    what the checkpoint leaves open, and must agree with the rest; `overrides` are single fields of
    DeltaLMConfig with the same meaning, on top of `config`. An XLM-R leaves the decoder's depth (half of its
    layers), its form (interleaved) and the special tokens open (sentinels behind its table); a fairseq file
    without its training options leaves the number of heads open (that of the published width).

    `cross_attention_start` is for `decoder="standard"` from an XLM-R alone: "random", the default there, as
    in a new model, or "copied" from the self-attention of the same layer.

    Token rows that the checkpoint has not are drawn from N(0, 1 / width) with `seed`, random cross-attention
    too. UserError, naming the
    tensor or field, for anything missing, left over, contradictory, damaged, or that needs code to be read.
    """
    source = read_source(Path(path))
    resolved = source.resolve(config, overrides)
    weights, report = source.fill(resolved, seed, cross_attention_start)
    return Loaded(resolved, weights, report)
