"""The operations a DeltaLM is made of, behind one seam.

Lengths instead of masks, no padding inside. What stands here is the torch reference on which fused kernels
are measured.
"""

from deltalm_ds.ops.add_norm import apply_dropout, dropout_add, dropout_add_layer_norm, layer_norm
from deltalm_ds.ops.attention import attention
from deltalm_ds.ops.cross_entropy import IGNORE, CrossEntropy, SmoothingForm, linear_cross_entropy
from deltalm_ds.ops.gelu import bias_gelu
from deltalm_ds.ops.philox import Dropout

__all__ = [
    "IGNORE",
    "CrossEntropy",
    "Dropout",
    "SmoothingForm",
    "apply_dropout",
    "attention",
    "bias_gelu",
    "dropout_add",
    "dropout_add_layer_norm",
    "layer_norm",
    "linear_cross_entropy",
]
