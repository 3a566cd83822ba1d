"""How long work tells how far it is: a protocol, so that libraries print nothing themselves."""

from typing import Protocol


class Progress(Protocol):
    """Receives how far a long task is. One task at a time."""

    def begin(self, task: str, total: int, unit: str) -> None:
        """A task begins: `total` steps of `unit`."""
        ...

    def advance(self, amount: int, note: str = "") -> None:
        """`amount` more steps are done; `note` is shown behind the bar."""
        ...

    def message(self, text: str) -> None:
        """Something the user should read now, one line."""
        ...

    def end(self) -> None:
        """The task is over, finished or not."""
        ...


class NoProgress:
    """Says nothing."""

    def begin(self, task: str, total: int, unit: str) -> None:
        """Ignore it."""

    def advance(self, amount: int, note: str = "") -> None:
        """Ignore it."""

    def message(self, text: str) -> None:
        """Ignore it."""

    def end(self) -> None:
        """Ignore it."""
