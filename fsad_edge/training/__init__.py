"""Encoders and their contrastive training, on the host: needs the ``train`` extra."""
