"""Whether a line still is what it was: the quality of photographs and the drift of scores."""
