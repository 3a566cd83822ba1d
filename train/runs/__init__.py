"""The folder of a run: checkpoints, logs, and what was trained."""
