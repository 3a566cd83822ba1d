"""The command line: the one room that prints, reads the environment and imports upward, lazily."""
