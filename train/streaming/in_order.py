"""Make things ahead of whoever uses them, in threads, and hand them over in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from laughstore.errors import ConfigError

from ..plan import check_whole


def in_order[Item, Made](
    make: Callable[[Item], Made], items: Iterable[Item], num_threads: int
) -> Generator[Made]:
    """Yield `make(item)` of each item, in the order of the items.

    Nothing that was yielded is referred to here when the next is asked for. An error of an item, or
    of making it, comes in its place: behind all that was made of the items before.

    Args:
        make: called in one thread of `num_threads`, or, if that is 1, by the caller's own when it
            asks.
        items: iterated by the caller's thread; at most `num_threads` beyond those yielded.
        num_threads: 1 or more.
    """
    if num_threads == 1:
        for item in items:
            yield make(item)
        return
    with ThreadPoolExecutor(num_threads, "laughstore-gather") as pool:
        coming: deque[Future[Made]] = deque()
        try:
            for future in _submitted(pool, make, items):
                coming.append(future)
                del future
                if len(coming) > num_threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def _submitted[Item, Made](
    pool: ThreadPoolExecutor, make: Callable[[Item], Made], items: Iterable[Item]
) -> Iterator[Future[Made]]:
    """Yield a future of each item; an error of the items is the last one's."""
    try:
        for item in items:
            yield pool.submit(make, item)
    except Exception as error:
        failed: Future[Made] = Future()
        failed.set_exception(error)
        yield failed


def check_threads(threads: int) -> int:
    """Return the number of threads.

    Raises:
        ConfigError: it is no whole number, or below 1.
    """
    check_whole("threads", threads)
    if threads < 1:
        raise ConfigError(f"threads is {threads}; it must be at least 1")
    return int(threads)
