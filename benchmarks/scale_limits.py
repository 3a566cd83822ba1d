"""What stops a store from growing, and at how many hours: limits of the code, as it stands.

Where the code names a limit, it is taken from there, so that one that is moved there moves here;
what it does not name (digits of a shard's number, bytes of a number) has a name below.
"""

from collections.abc import Callable
from dataclasses import dataclass

from laughstore import columns, sealed
from laughstore.annotation_formats import source
from laughstore.reading import rows

from .extrapolation import GEOMETRY, SMALL_IDS, Coefficients, Kind, Size, rank_bytes

ADDRESS_BYTES = 2**47
"""Of a process, on x86-64 with four levels of page tables."""
RANK_BYTES = 16 * 2**30
"""Assumed: a machine of 128 GiB with eight ranks."""
_NUMBERED_SHARDS = 10**6
"""Six digits."""
_GLOBAL_ROW_BYTES = 8
_MOST_HOURS = 1e12


@dataclass(frozen=True)
class Limit:
    """Something that ends, or changes, at a size."""

    what: str
    formula: str
    limit: float
    unit: str
    hours: float
    """From where on it is passed."""
    kind: Kind
    then: str
    """What happens, and what can be done."""


def limits(found: Coefficients) -> list[Limit]:
    """Return all limits, the first to be hit first."""

    def limit(
        what: str,
        formula: str,
        most: float,
        unit: str,
        kind: Kind,
        then: str,
        value: Callable[[Size], float],
    ) -> Limit:
        return Limit(what, formula, most, unit, hours_at(most, value), kind, then)

    fewer = "nothing is published, the message says so: fewer recordings into one store"
    return sorted(
        [
            limit(
                "manifest `store.json` (`sealed.MAX_BYTES`)",
                "manifest(R)",
                sealed.MAX_BYTES,
                "B",
                "fitted",
                fewer,
                lambda size: found.manifest_bytes.at(size.recordings),
            ),
            limit(
                "index `index.json` (`sealed.MAX_BYTES`)",
                "index(R)",
                sealed.MAX_BYTES,
                "B",
                "fitted",
                fewer,
                lambda size: found.index_bytes.at(size.recordings),
            ),
            limit(
                "one build plan (`sealed.MAX_BYTES`)",
                "plan(R)",
                sealed.MAX_BYTES,
                "B",
                "fitted",
                "the build does not begin: build a part, then `laughstore add` the others",
                lambda size: found.plan_bytes.at(size.recordings),
            ),
            limit(
                "columns of the index (`columns.MAX_BYTES`)",
                "columns(R)",
                columns.MAX_BYTES,
                "B",
                "fitted",
                fewer,
                lambda size: found.columns_bytes.at(size.recordings),
            ),
            limit(
                "mapped shards of a split (`rows.MAX_MAPPED_PIECES`, below Linux's"
                " `vm.max_map_count` of 65,530)",
                "shards",
                rows.MAX_MAPPED_PIECES,
                "",
                "computed",
                "`reader=auto` takes the window reader, `map` is refused; larger `shard_frames`"
                " move it",
                lambda size: size.shards,
            ),
            limit(
                "addresses of a process, which both readers reserve for the whole split",
                "bytes of shard files",
                ADDRESS_BYTES,
                "B",
                "computed",
                "the stream does not open; splits must be smaller",
                lambda size: size.shard_bytes,
            ),
            limit(
                "frame ids in 4 bytes",
                f"{GEOMETRY.block_frames} x blocks",
                SMALL_IDS,
                "",
                "computed",
                "nothing fails: ids take 8 bytes, 4 more a row in each rank",
                lambda size: size.blocks * GEOMETRY.block_frames,
            ),
            limit(
                "memory of a rank: 16 GiB (assumed: 128 GiB, eight ranks)",
                "rank(R)",
                RANK_BYTES,
                "B",
                "fitted",
                "the machine runs out of memory: every rank holds labels and ids of the whole"
                " split, not of its lanes",
                lambda size: rank_bytes(size, found),
            ),
            limit(
                "`--mix global`: an order of all rows in the same 16 GiB",
                f"{_GLOBAL_ROW_BYTES} N",
                RANK_BYTES,
                "B",
                "computed",
                "use windows",
                lambda size: _GLOBAL_ROW_BYTES * size.frames,
            ),
            limit(
                "shard names of six digits",
                "shards",
                _NUMBERED_SHARDS,
                "",
                "computed",
                "nothing fails: names get a seventh digit, and no longer sort as their numbers do",
                lambda size: size.shards,
            ),
            limit(
                "files of an annotation folder (`source.MAX_FILES`)",
                "R",
                source.MAX_FILES,
                "",
                "computed",
                "`annotate` and `import` refuse the folder: give a table of many recordings",
                lambda size: size.recordings,
            ),
        ],
        key=lambda item: item.hours,
    )


def hours_at(most: float, value: Callable[[Size], float]) -> float:
    """Return the hours at which a rising value passes `most`, to a millionth."""
    low, high = 0.0, _MOST_HOURS
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if value(Size.of_hours(middle)) > most else (middle, high)
    return high
