"""The names and shapes of DeltaLM's parameters, and how other layouts name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deltalm_ds.errors import UserError
from deltalm_ds.model.config import DecoderForm, DeltaLMConfig

ENCODER_SUBLAYERS = ("attention", "feed_forward")
DECODER_SUBLAYERS: dict[DecoderForm, tuple[str, ...]] = {
    "interleaved": ("self_attention", "first_feed_forward", "cross_attention", "second_feed_forward"),
    "standard": ("self_attention", "cross_attention", "feed_forward"),
}

_IN_LAYER = re.compile(r"(encoder\.layers|decoder\.blocks)\.(\d+)\.(\w+)\.([a-z0-9]+)_(weight|bias)")


def parameter_shapes(config: DeltaLMConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of a DeltaLM of this shape; the tied table counts once."""
    width = config.width
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (config.vocabulary_rows, width)}
    for side, layers, count, sublayers in (
        ("encoder", "layers", config.num_encoder_layers, ENCODER_SUBLAYERS),
        ("decoder", "blocks", config.num_decoder_layers, DECODER_SUBLAYERS[config.decoder]),
    ):
        shapes[f"{side}.positions.weight"] = (config.position_rows, width)
        norms = ["embedding_norm"] * config.embedding_layer_norm + ["final_norm"] * config.pre_layer_norm
        for norm in norms:
            shapes[f"{side}.{norm}.weight"] = shapes[f"{side}.{norm}.bias"] = (width,)
        for index in range(count):
            for sublayer in sublayers:
                for name, shape in _sublayer_shapes(sublayer, config).items():
                    shapes[f"{side}.{layers}.{index}.{sublayer}.{name}"] = shape
    return shapes


def _sublayer_shapes(sublayer: str, config: DeltaLMConfig) -> dict[str, tuple[int, ...]]:
    width, inner = config.width, config.feed_forward_width
    outputs_inputs = (
        {"fc1": (inner, width), "fc2": (width, inner)}
        if sublayer.endswith("feed_forward")
        else dict.fromkeys(("query", "key", "value", "output"), (width, width))
    )
    shapes: dict[str, tuple[int, ...]] = {}
    for operation, (outputs, inputs) in outputs_inputs.items():
        shapes[f"{operation}_weight"] = (outputs, inputs)
        shapes[f"{operation}_bias"] = (outputs,)
    return shapes | {"norm_weight": (width,), "norm_bias": (width,)}


@dataclass(frozen=True)
class InLayer:
    """A parameter inside a layer, for example `decoder.blocks.3.cross_attention.key_bias`."""

    layers: str
    """`encoder.layers` or `decoder.blocks`."""
    index: int
    """Which layer, or which of `decoder.blocks`."""
    sublayer: str
    """For example `cross_attention`."""
    operation: str
    """`query`, `key`, `value`, `output`, `fc1`, `fc2` or `norm`."""
    kind: str
    """`weight` or `bias`."""

    @classmethod
    def parse(cls, name: str) -> InLayer | None:
        """The parts of one of our names, or None for a parameter outside the layers."""
        found = _IN_LAYER.fullmatch(name)
        if found is None:
            return None
        return cls(found[1], int(found[2]), found[3], found[4], found[5])

    def __str__(self) -> str:
        return f"{self.layers}.{self.index}.{self.sublayer}.{self.operation}_{self.kind}"


@dataclass(frozen=True)
class Naming:
    """How a foreign layout names our parameters; every name is found from ours, never the reverse."""

    modules: Mapping[str, str]
    """Outside the layers: our module → theirs, `.weight` or `.bias` behind both."""
    layers: Mapping[str, str]
    """`encoder.layers`, `decoder.blocks` → what stands before the layer's number."""
    operations: Mapping[str, Mapping[str, str]]
    """Sub-layer → operation → their module within the layer."""

    def name_of(self, ours: str) -> str:
        """Their name of our parameter."""
        place = InLayer.parse(ours)
        if place is None:
            module, kind = ours.rsplit(".", 1)
            return f"{self.modules[module]}.{kind}"
        module = self.operations[place.sublayer][place.operation]
        return f"{self.layers[place.layers]}.{place.index}.{module}.{place.kind}"


def count_layers(path: Path, names: Mapping[str, object], prefix: str) -> int:
    """One more than the highest N in names of the form `prefix.N.…`; 0 without any.

    UserError where it is more than there are names: a name alone would make a model of any size.
    """
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    count = 0
    for number in (found[1] for name in names if (found := pattern.match(name))):
        if len(number) > len(str(len(names))) or int(number) >= len(names):
            raise UserError(
                f"{path}: names layer {number[:20]} of {prefix} and holds only {len(names)} tensors; take "
                "another copy of it"
            )
        count = max(count, int(number) + 1)
    return count
