"""The reading side's inner loops in C, compiled on first use: the same integers as the NumPy versions."""
