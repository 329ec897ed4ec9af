"""Accuracy of fsad-edge, of other systems and of two baselines, over data sets, shots and seeds."""
