"""Latency: ``latency`` interleaves any callables, ``benchmark`` measures exported files."""
