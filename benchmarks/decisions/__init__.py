"""What a model decides: false alarms, misses, what examples change, and what is not judged."""
