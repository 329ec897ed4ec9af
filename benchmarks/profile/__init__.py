"""Where a model's milliseconds go: ``python -m`` this."""
