"""The stream: every frame exactly once, in batches. Of `train` it needs `plan` alone."""
