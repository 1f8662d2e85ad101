"""Token ids that the search itself knows (fairseq's)."""

END = 2
"""`</s>`, which ends a hypothesis, and which the decoder reads first."""
