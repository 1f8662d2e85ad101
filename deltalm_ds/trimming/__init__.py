"""Vocabularies cut to the pieces of given text, and proof that nothing else changed."""
