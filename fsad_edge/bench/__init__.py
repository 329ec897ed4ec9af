"""Measure latency: ``latency`` of any callables in turns, ``benchmark`` of exported files."""
