"""Threads that nobody waits for after a failure or Ctrl-C, however long a remote side stalls.

Those of `concurrent.futures` are joined when the interpreter exits: with them a command that was
told to stop would go on until its last request has timed out.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Self


class DaemonThreads:
    """Runs tasks side by side; a context manager, which waits for them unless it ends by an error.

    Args:
        num_threads: started when there are tasks for them.
        name: begins the threads' names.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._num_threads, self._name = num_threads, name
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def submit[**P, T](self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Return the future of `work(...)`, which is begun when a thread is free."""
        future: Future[T] = Future()
        self._tasks.put(lambda: _fulfil(future, lambda: work(*args, **kwargs)))
        if len(self._threads) < self._num_threads:
            name = f"{self._name}-{len(self._threads)}"
            thread = threading.Thread(target=self._run, daemon=True, name=name)
            thread.start()
            self._threads.append(thread)
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped = kind is not None  # what is not begun never is
        for _ in self._threads:
            self._tasks.put(None)
        if kind is None:
            for thread in self._threads:
                thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            if not self._stopped:
                task()


def interruptibly[T](work: Callable[[], T]) -> T:
    """Return what `work` returns; the main thread sees signals (Ctrl-C) while it waits.

    For calls that return to Python only when all is over.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    result: Future[T] = Future()
    task = threading.Thread(target=_fulfil, args=(result, work), daemon=True, name="laughstore")
    task.start()
    return result.result()


def _fulfil[T](future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
