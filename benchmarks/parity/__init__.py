"""The score before and after export, ours and anomalib's; see ``__main__.py``."""
