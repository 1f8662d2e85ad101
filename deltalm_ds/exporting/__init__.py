"""Models in other programs' layouts, and with smaller vocabularies."""
