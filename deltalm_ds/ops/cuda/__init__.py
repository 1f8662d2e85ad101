"""The fused GPU kernels of `kernels/`, called from Python."""
