"""What is learnt from the shots through the exported graph: memory bank, Gaussian, threshold."""
