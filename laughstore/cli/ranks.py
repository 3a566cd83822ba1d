"""What torchrun tells a process: the only place that reads its variables."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ..errors import ConfigError
from ..parts import Part

if TYPE_CHECKING:
    from train.distributed.place import Place


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

    def place(self, timeout_s: float) -> "Place":
        """Return where this process meets the others, for `train`.

        Args:
            timeout_s: how long one rank waits for another.

        Raises:
            ConfigError: a variable is missing or is no number.
        """
        from train.distributed.place import Place

        try:
            agent_keeps_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            return Place(
                rank=self.rank,
                local_rank=self.local_rank,
                world_size=int(os.environ["WORLD_SIZE"]),
                local_world_size=int(os.environ["LOCAL_WORLD_SIZE"]),
                host=os.environ["MASTER_ADDR"],
                port=int(os.environ["MASTER_PORT"]),
                keeps_store=self.rank == 0 and not agent_keeps_store,
                timeout_s=timeout_s,
            )
        except (KeyError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"TORCHELASTIC_RUN_ID is set as by torchrun, and one of its other variables is not"
                f" ({error}); start all processes with torchrun, or unset TORCHELASTIC_RUN_ID"
            ) from error

    @property
    def part(self) -> Part | None:
        """The part of this host, or None when there is only one.

        The processes of a host share by locks. Hosts do not: where a file system keeps locks to
        itself, two of them would write the same recording.
        """
        return Part(self.host + 1, self.num_hosts) if self.num_hosts > 1 else None
