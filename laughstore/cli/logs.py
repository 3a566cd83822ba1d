"""The packages' messages on stderr, for as long as a command runs."""

import logging
import os
import sys

_PACKAGES = ("laughstore", "extract", "train")
_CHATTY = "huggingface_hub"
"""Warns of every retry; our own error says what the outcome was."""
_CHATTY_LEVEL = "HF_HUB_VERBOSITY"
"""Its level from when it is imported, which sets what was set before; the user's own is kept."""


def start(*, verbose: bool, quiet: bool) -> None:
    """Show warnings; with `verbose` what goes on too, with `quiet` errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING)
    level = logging.WARNING if verbose else logging.ERROR
    logging.getLogger(_CHATTY).setLevel(level)
    os.environ.setdefault(_CHATTY_LEVEL, logging.getLevelName(level).lower())


def stop() -> None:
    """Leave the packages' loggers as a library has them."""
    for package in _PACKAGES:
        logging.getLogger(package).handlers.clear()
        logging.getLogger(package).setLevel(logging.NOTSET)
    logging.getLogger(_CHATTY).setLevel(logging.NOTSET)
