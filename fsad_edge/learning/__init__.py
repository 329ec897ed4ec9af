"""What a model learns on the device: images that a person calls good, and their journal."""
