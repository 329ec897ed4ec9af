"""The service that a production line runs on: ``fsad-edge serve``."""
