"""What torchrun tells a process: the only place that reads its variables."""

import os
from dataclasses import dataclass
from typing import Self

from ..errors import ConfigError
from ..parts import Part


@dataclass(frozen=True)
class Rank:
    """The place of this process among those that torchrun has started."""

    rank: int
    """Of all processes."""
    local_rank: int
    """Of those of this host; also the number of its GPU."""
    host: int
    """From 0."""
    num_hosts: int

    @classmethod
    def of_torchrun(cls) -> Self | None:
        """Return what torchrun's variables say, or None when it did not start this process.

        Raises:
            ConfigError: a variable is missing or is no number.
        """
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE")
        try:
            return cls(*(int(os.environ[name]) for name in names))
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"TORCHELASTIC_RUN_ID is set as by torchrun, and {' or '.join(names)} is not a"
                " number; start all processes with torchrun, or unset TORCHELASTIC_RUN_ID"
            ) from error

    @property
    def part(self) -> Part | None:
        """The part of this host, or None when there is only one.

        The processes of a host share by locks. Hosts do not: where a file system keeps locks to
        itself, two of them would write the same recording.
        """
        return Part(self.host + 1, self.num_hosts) if self.num_hosts > 1 else None
