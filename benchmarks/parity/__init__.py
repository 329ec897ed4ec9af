"""Scores before and after export: ``python -m benchmarks.parity``."""
