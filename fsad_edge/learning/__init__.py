"""Learning on a device: images that a person calls good, and the journal of them."""
