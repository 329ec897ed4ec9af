"""Score images with an exported file: numpy, Pillow and one engine."""
