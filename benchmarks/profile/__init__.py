"""Time of each node of a model: ``python -m benchmarks.profile``."""
