"""One file for each downstream task."""
