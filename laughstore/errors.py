"""The errors laughstore raises, grouped by what a caller does about them.

    LaughstoreError
    ├── ConfigError      (ValueError)         the request is wrong: change it
    ├── NotFound         (FileNotFoundError)  a path does not exist: give another
    ├── BadRecording                          a recording is unusable: the rest goes on
    ├── CorruptData                           bytes were altered: restore or rebuild them
    ├── SpecMismatch                          another model or setting: use another store
    ├── IncompleteStore                       a build has not finished: run it again
    ├── Unreachable      (OSError)            a remote store does not answer: try again
    └── MissingExtra     (ImportError)        an optional package is not installed: install it

Each message is one line: what happened, where, what to do.
"""

from typing import ClassVar


class LaughstoreError(Exception):
    """Base of every error raised on purpose; the command line prints it as one line."""

    exit_code: ClassVar[int] = 1
    """What the process returns when this error ends a command: 1 failed, 2 usage."""

    def __str__(self) -> str:
        # FileNotFoundError would otherwise print its (errno, strerror) form.
        return " ".join(str(argument) for argument in self.args)


class ConfigError(LaughstoreError, ValueError):
    """A setting has a value that cannot work; the message names it, the value and the rule."""

    exit_code: ClassVar[int] = 2


class NotFound(LaughstoreError, FileNotFoundError):
    """A file, folder, recording or run that was asked for does not exist."""


class BadRecording(LaughstoreError):
    """One recording's audio or annotations cannot be used; others are not affected."""


class CorruptData(LaughstoreError):
    """Stored bytes differ from what was written (cut, flipped, swapped or edited)."""


class SpecMismatch(LaughstoreError):
    """Features asked for and features stored come from different models or settings."""

    exit_code: ClassVar[int] = 2


class IncompleteStore(LaughstoreError):
    """A store has no committed generation yet, or the one named is not whole."""


class Unreachable(LaughstoreError, OSError):
    """A remote store could not be read or written, after retries."""


class MissingExtra(LaughstoreError, ImportError):
    """An optional dependency is needed for what was asked."""
