"""A lock of each process: free in a forked child, and there too held by one thread at a time."""

import gc
import os
import threading
import weakref
from contextlib import suppress

from laughstore.process_lock import ProcessLock


def _in_a_child(body) -> bool:
    """Whether `body` returns True in a forked child."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if body() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _enters(lock: ProcessLock, wait_s: float = 30.0) -> bool:
    """Whether another thread can hold the lock now."""
    entered = threading.Event()

    def enter() -> None:
        with lock:
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return entered.wait(wait_s)


def test_a_child_finds_a_lock_free_that_its_parent_holds():
    lock = ProcessLock()
    with lock:
        assert not _enters(lock, 0.2)
        assert _in_a_child(lambda: _enters(lock))
        assert not _enters(lock, 0.2)
    assert _enters(lock)


def test_two_threads_of_a_child_never_hold_it_together(monkeypatch):
    lock = ProcessLock()
    getpid, together = os.getpid, threading.Barrier(2)

    def slow_getpid() -> int:
        # Whoever decides by the process's number whose lock it is, decides beside the other thread.
        pid = getpid()
        with suppress(threading.BrokenBarrierError):
            together.wait(1)
        return pid

    def body() -> bool:
        monkeypatch.setattr(os, "getpid", slow_getpid)
        most = inside = 0

        def work() -> None:
            nonlocal most, inside
            with lock:
                inside += 1
                most = max(most, inside)
                threading.Event().wait(0.3)
                inside -= 1

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return most == 1

    assert _in_a_child(body)


def test_locks_go_with_their_owners():
    lock = ProcessLock()
    gone = weakref.ref(lock)
    del lock
    gc.collect()
    assert gone() is None
    assert _in_a_child(lambda: True)
