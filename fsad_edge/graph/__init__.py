"""The graph that is exported: built from an encoder, proved, and rewritten to other precisions."""
