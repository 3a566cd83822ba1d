"""How ranks find each other, and nobody who is dead, in a store that outlives them.

torchrun keeps one store for all attempts, and its count of attempts does not tell them apart: a
host that begins again only because another one does is not counted, so hosts differ in it. So each
rank brings a word that nobody has said before, the first one writes all words down, and they have
met once everyone has found the own word among them.
"""

import hashlib
import secrets
import time
from typing import Final

from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

_POLL_S: Final = 0.02
_WORDS: Final = "meeting/words"


class NotMetError(Exception):
    """Some ranks did not come in time."""

    def __init__(self, ranks: list[int]) -> None:
        super().__init__(ranks)
        self.ranks = ranks


def meet(store: Store, rank: int, world_size: int, *, timeout_s: float) -> str:
    """Wait until all ranks are here, in a way that a signal ends.

    Args:
        store: that all of them reach, whatever earlier attempts have left in it.
        rank: of this process.
        world_size: number of ranks.
        timeout_s: how long to wait.

    Returns:
        A name that the ranks of this attempt have in common, and no others.

    Raises:
        NotMetError: some did not come.
    """
    mine, until_s = secrets.token_hex(8), time.monotonic() + timeout_s
    ranks = range(world_size)
    store.set(f"meeting/{rank}", mine)
    while True:
        if rank == 0:
            heard = "/".join(_read(store, f"meeting/{other}") for other in ranks)
            if heard != _read(store, _WORDS):
                store.set(_WORDS, heard)
        words = _read(store, _WORDS)
        name = hashlib.sha256(words.encode()).hexdigest()[:16]
        here = [f"{name}/here/{other}" for other in ranks]
        is_heard = len(words.split("/")) == world_size and words.split("/")[rank] == mine
        if is_heard:
            store.set(here[rank], "")
            if store.check(here):
                return name
        if time.monotonic() > until_s:
            # The first one writes down who has come.
            raise NotMetError([n for n in ranks if not store.check([here[n]])] if is_heard else [0])
        time.sleep(_POLL_S)


def _read(store: Store, key: str) -> str:
    """What stands under a key, or nothing; without waiting for it."""
    return store.get(key).decode() if store.check([key]) else ""
