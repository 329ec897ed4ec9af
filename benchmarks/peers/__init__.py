"""Other people's anomaly detectors on our shots, weights and pixels.

They run in an environment of their own, made by ``python -m benchmarks.peers.install``: nothing
here but ``install`` runs in ours, and nothing here imports fsad_edge.
"""
