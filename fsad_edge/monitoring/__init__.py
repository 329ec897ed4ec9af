"""Whether a production line has changed: the quality of photographs and the drift of scores."""
