"""Training: steps, decisions between them, and going on after an interruption."""
