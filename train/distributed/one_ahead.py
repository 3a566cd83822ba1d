"""An iterator whose next item may be made before it is asked for."""

from collections.abc import Iterator
from typing import Self


class OneAhead[Item](Iterator[Item]):
    """The items of an iterator.

    Args:
        items: handed on in their order.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._made: list[Item] = []
        """The next one, if it is made."""
        self._error: Exception | None = None
        """What is raised instead; StopIteration behind the last one."""

    def make(self) -> None:
        """Make the next item now. What that raises, asking for it raises, and this does not."""
        if self._made or self._error is not None:
            return
        try:
            self._made.append(next(self._items))
        except Exception as error:
            self._error = error

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        self.make()
        if self._error is not None:
            raise self._error
        return self._made.pop()
