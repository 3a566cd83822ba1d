"""Many heads trained in one pass over the frames."""
