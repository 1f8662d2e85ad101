"""The operations a DeltaLM is made of, behind one seam.

Lengths instead of masks, no padding inside. Each operation runs by torch, by a small C kernel on CPUs, or by
its CUDA kernel: cuda/choice.py.
"""

from deltalm_ds.ops.adam import FusedAdamW
from deltalm_ds.ops.add_norm import dropout_add, dropout_add_layer_norm, layer_norm
from deltalm_ds.ops.attention import attention
from deltalm_ds.ops.cross_entropy import IGNORE, CrossEntropy, SmoothingForm, linear_cross_entropy
from deltalm_ds.ops.dropout import apply_dropout
from deltalm_ds.ops.gelu import bias_gelu, bias_gelu_linear
from deltalm_ds.ops.largest import largest
from deltalm_ds.ops.look_up import look_up
from deltalm_ds.ops.philox import Dropout
from deltalm_ds.ops.products import linear
from deltalm_ds.ops.slot_attention import attend_slots
from deltalm_ds.ops.softmax import log_sums

__all__ = [
    "IGNORE",
    "CrossEntropy",
    "Dropout",
    "FusedAdamW",
    "SmoothingForm",
    "apply_dropout",
    "attend_slots",
    "attention",
    "bias_gelu",
    "bias_gelu_linear",
    "dropout_add",
    "dropout_add_layer_norm",
    "largest",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "log_sums",
    "look_up",
]
