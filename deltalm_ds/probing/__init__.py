"""Which reading of released weights fits them, by their loss on given text."""
