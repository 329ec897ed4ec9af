"""Other projects' anomaly detectors on our shots, weights and pixels.

They run in an environment of their own, which ``python -m benchmarks.peers.install`` makes. Only
``install`` and ``client`` run in ours, and nothing else here imports fsad_edge.
"""
