"""CPU kernels in C behind the operations, compiled on first use."""
