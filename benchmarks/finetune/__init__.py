"""How long it takes from photographs in a folder to the first score of the exported file."""
