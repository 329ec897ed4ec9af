"""Latency of exported files and of peers, in turns in one process: ``python -m`` this."""
