"""From a model to text: caches, search, and its settings."""
