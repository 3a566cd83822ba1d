"""Make things ahead of whoever uses them, in threads, and hand them over in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from laughstore.errors import ConfigError

from .plan import check_whole


def in_order[Item, Made](
    make: Callable[[Item], Made], items: Iterable[Item], num_threads: int
) -> Generator[Made]:
    """Yield `make(item)` of each item, in the order of the items.

    Nothing that was yielded is referred to here when the next is asked for.

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
            for item in items:
                coming.append(pool.submit(make, item))
                if len(coming) > num_threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def check_threads(threads: int) -> int:
    """Return the number of threads.

    Raises:
        ConfigError: it is no whole number, or below 1.
    """
    check_whole("threads", threads)
    if threads < 1:
        raise ConfigError(f"threads is {threads}; it must be at least 1")
    return int(threads)
