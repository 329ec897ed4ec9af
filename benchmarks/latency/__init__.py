"""Latency of exported files and of peers: ``python -m benchmarks.latency``."""
