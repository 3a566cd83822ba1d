"""Real ranks: forked processes that meet over gloo, as torchrun's would."""

import multiprocessing
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, wait
from typing import Any

from train.distributed.place import Place

# What optimisers and runs load: here once, not in each child.
for name in ("torch._dynamo", "torch.distributed.fsdp", "train.loop"):
    import_module(name)

TIMEOUT_S = 60.0
_context = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Ended:
    """How a rank has ended."""

    value: Any = None
    """What it returned."""
    error: BaseException | None = None
    """What it raised."""
    was_killed: bool = False

    def result(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        assert not self.was_killed
        return self.value


def on_ranks(
    world_size: int,
    work: Callable[[Place], object],
    *,
    wait_s: float = 20.0,
    kill_stuck: bool = False,
) -> list[Ended]:
    """Let each rank do this work; return how they ended.

    Args:
        world_size: number of ranks.
        work: called with the place of each.
        wait_s: how long ranks wait for each other.
        kill_stuck: kill the ranks that still run when another has ended with an error.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = [
            _start(
                Place(
                    rank=rank,
                    local_rank=rank,
                    world_size=world_size,
                    port=server.getsockname()[1],
                    keeps_store=rank == 0,
                    listener=server.fileno() if rank == 0 else None,
                    timeout_s=wait_s,
                ),
                work,
            )
            for rank in range(world_size)
        ]
    ended = []
    for process, pipe in started:
        if kill_stuck and any(end.error is not None for end in ended):
            process.kill()
        ended.append(_end(process, pipe))
    return ended


def _start(place: Place, work: Callable[[Place], object]) -> tuple[Any, Connection]:
    ours, theirs = _context.Pipe(duplex=False)
    process = _context.Process(target=_run, args=(theirs, place, work))
    process.start()
    theirs.close()
    return process, ours


def _run(pipe: Connection, place: Place, work: Callable[[Place], object]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        told = Ended(work(place))
    except BaseException as error:
        traceback.print_exc()
        told = Ended(error=error)
    pipe.send_bytes(pickle.dumps(told))
    pipe.close()
    os._exit(0)


def _end(process: Any, pipe: Connection) -> Ended:
    try:
        assert wait([pipe], TIMEOUT_S), "a rank hangs"
        return pickle.loads(pipe.recv_bytes())
    except EOFError:
        return Ended(was_killed=True)
    finally:
        pipe.close()
        process.kill()
        process.join()
