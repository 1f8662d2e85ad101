"""DeltaLM pre-training, fine-tuning and serving on DeepSpeed."""

__version__ = "0.1.0"
