"""Which files a store says it has: every name once, with the size and SHA-256 it should have."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import NotFound
from ..manifest import FileRecord
from .report import Fault
from .shard_check import ShardView


@dataclass(slots=True)
class Claim:
    """One file that something in the store names."""

    path: str
    num_bytes: int
    sha256: str
    also: str | None
    """Second name of the same bytes."""
    source: str
    """File that names it."""


@dataclass
class Survey:
    """What reading the metadata of a store has given so far."""

    claims: dict[str, Claim] = field(default_factory=dict)
    """By path."""
    views: dict[str, ShardView] = field(default_factory=dict)
    """What shards hold, by path."""
    own: set[str] = field(default_factory=set)
    """Files that belong to a store and that nothing names: manifests, statistics, locks."""
    in_progress: set[str] = field(default_factory=set)
    """Paths that an addition which has not been finished may have written, or may write."""
    generations: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    suspicions: list[tuple[tuple[str, ...], Fault]] = field(default_factory=list)
    """(files, fault): what only counts when no fault is found in these files."""
    notes: list[str] = field(default_factory=list)
    plan_annotations: dict[str, str] = field(default_factory=dict)
    """Recording id -> id of its annotations as of its build."""

    def claim(self, record: FileRecord, source: str) -> None:
        """Take up what a file says of another; two that disagree are a fault."""
        there = self.claims.get(record.path)
        if there is None:
            self.claims[record.path] = Claim(
                record.path, record.num_bytes, record.sha256, record.also, source
            )
            return
        if there.also is None:
            there.also = record.also
        said = (record.num_bytes, record.sha256, record.also or there.also)
        if said != (there.num_bytes, there.sha256, there.also):
            self.suspect(
                (source, there.source),
                Fault(
                    source,
                    f"says of {record.path} what {there.source} does not say",
                    "they do not belong together: restore both from one copy of the store",
                ),
            )

    def fault(self, path: str, what: str, advice: str, also: str | None = None) -> None:
        """Take up a fault of a whole file."""
        self.faults.append(Fault(path, what, advice, also=also))

    def suspect(self, files: tuple[str, ...], fault: Fault) -> None:
        """Take up a fault that explains itself if one of these files was altered."""
        self.suspicions.append((files, fault))

    def names(self) -> Iterator[str]:
        """Yield every name that something gives to a file, second names too."""
        for claim in self.claims.values():
            yield claim.path
            if claim.also is not None:
                yield claim.also
        yield from self.own


def reason(error: Exception, where: str) -> str:
    """Return what an error says without where it was and what to do: a fault says both itself."""
    text = " ".join(str(error).split()).removeprefix(f"{where}: ").partition(";")[0]
    if isinstance(error, NotFound):
        return "is missing"
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror.lower()
    return f"cannot be read ({text})"
