"""Fine-tuning on the host: needs the ``train`` extra (torch, timm)."""
