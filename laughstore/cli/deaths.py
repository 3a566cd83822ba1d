"""Which recordings kill the processes that extract them: a count of deaths, nothing more.

A process may have several recordings in work when it dies. All of them are suspects then, and are
tried again last and alone, so that the innocent ones are found out by being finished.
"""

from collections import Counter
from collections.abc import Collection

MAX_DEATHS = 3
"""Deaths with a recording in work before it is given up, the last of them with it alone."""


class Deaths:
    """Counts, for each recording, the processes that died while it was in work."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @property
    def suspects(self) -> tuple[str, ...]:
        """Ids of recordings that a process has died with."""
        return tuple(sorted(self._counts))

    def add(self, in_work: Collection[str]) -> str | None:
        """Count a death.

        Args:
            in_work: ids of what the process had in work.

        Returns:
            The id of the recording that is to be given up, if one is: this was not its first death,
            and it was alone.
        """
        self._counts.update(in_work)
        if len(in_work) != 1:
            return None
        (only,) = in_work
        return only if self._counts[only] >= MAX_DEATHS else None
