"""Later generations of a store: annotating, what is kept of old ones, parts of a store."""
