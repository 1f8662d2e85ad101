"""The model, its configuration and its packed batches."""

from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.deltalm import DeltaLM
from deltalm_ds.model.masked_encoder import MaskedEncoder
from deltalm_ds.model.packed import PackedTokens
from deltalm_ds.model.randomness import DropoutState
from deltalm_ds.model.recomputation import Recomputation

__all__ = ["DeltaLM", "DeltaLMConfig", "DropoutState", "MaskedEncoder", "PackedTokens", "Recomputation"]
