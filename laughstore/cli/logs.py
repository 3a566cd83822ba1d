"""The packages' messages on stderr, for as long as a command runs."""

import logging
import sys

_PACKAGES = ("laughstore", "extract", "train")
_CHATTY = "huggingface_hub"
"""Warns of every retry; our own error says what the outcome was."""


def start(*, verbose: bool, quiet: bool) -> None:
    """Show warnings; with `verbose` what goes on too, with `quiet` errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING)
    logging.getLogger(_CHATTY).setLevel(logging.WARNING if verbose else logging.ERROR)


def stop() -> None:
    """Leave the packages' loggers as a library has them."""
    for package in _PACKAGES:
        logging.getLogger(package).handlers.clear()
        logging.getLogger(package).setLevel(logging.NOTSET)
    logging.getLogger(_CHATTY).setLevel(logging.NOTSET)
