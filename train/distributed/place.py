"""The place of a process among those that train one model together. No torch here."""

from dataclasses import dataclass
from typing import Final

from laughstore.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """Which rank this process is, and where the ranks meet.

    Raises:
        ConfigError: there is no such place, or the time is none.
    """

    rank: int = 0
    """Of all processes."""
    local_rank: int = 0
    """Of those of this host; also the number of its GPU."""
    world_size: int = 1
    """Number of processes."""
    local_world_size: int = 1
    """Of those of this host."""
    host: str = "127.0.0.1"
    """Where the store of their addresses is."""
    port: int = 0
    """Its TCP port."""
    keeps_store: bool = False
    """This process keeps it."""
    listener: int | None = None
    """File descriptor of a socket that already listens on that port, for the one who keeps it."""
    timeout_s: float = 300.0
    """How long one rank waits for another."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank is {self.rank}; it must lie in 0 to {self.world_size - 1}")
        if not 0 < self.timeout_s < 1e6:  # also refuses NaN
            raise ConfigError(
                f"rank_timeout_s is {self.timeout_s}; it must be above 0 and below a million"
            )


ALONE: Final = Place()
"""Of the only process."""
