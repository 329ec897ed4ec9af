"""Accuracy of the tool, of peers and of two trivial rules: systems x data sets x shots x seeds."""
