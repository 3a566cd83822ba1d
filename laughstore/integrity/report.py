"""What a verification found: faults, notes, and the blocks that are not what was written."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it was written."""

    path: str
    """Of the file, relative to what was verified."""
    what: str
    """What is wrong with it."""
    advice: str
    """What to do about it."""
    sample: str | None = None
    """Key of the block: `<recording id>/<assignment>/<block, six digits>`."""
    start: int | None = None
    """First byte of the file that is concerned; None when it is the whole file."""
    stop: int | None = None
    """One past the last byte."""
    also: str | None = None
    """Second name of the same file, with the same fault."""

    def __str__(self) -> str:
        place = [self.path]
        if self.sample is not None:
            place.append(f"sample {self.sample}")
        if self.start is not None and self.stop is not None:
            one = self.stop - self.start == 1
            place.append(f"byte {self.start}" if one else f"bytes {self.start} to {self.stop - 1}")
        return f"{', '.join(place)}: {self.what}; {self.advice}"


@dataclass(frozen=True)
class VerifyReport:
    """The outcome of `laughstore.integrity.verify.verify`."""

    where: str
    """Path or URL that was verified."""
    shards_alone: bool
    """Whether only a shards folder was at hand: no units, arrays, codes or annotation files."""
    quick: bool
    """Whether only sizes, seals and the ends of shards were looked at."""
    generations: tuple[int, ...]
    """Those that were checked, newest first."""
    num_recordings: int
    """Of all generations together."""
    num_shards: int
    num_blocks: int
    num_files: int
    """Names that were looked at; two names of one file count twice."""
    num_bytes: int
    """Read from files that were hashed; two names of one file count once."""
    seconds: float
    faults: tuple[Fault, ...]
    """By path, then by byte."""
    notes: tuple[str, ...]
    """What is no fault, but somebody may want to know."""
    bad_blocks: tuple[str, ...]
    """Keys of the blocks whose rows cannot be read as they were written, from `shards/`."""

    @property
    def bad_files(self) -> tuple[str, ...]:
        """Files with at least one fault, by path."""
        return tuple(dict.fromkeys(fault.path for fault in self.faults))

    def to_json(self) -> dict[str, Any]:  # Any: a JSON object
        """Return a JSON object; its faults lack the fields that say nothing."""
        result = {name: value for name, value in vars(self).items() if name != "faults"}
        faults = [
            {key: value for key, value in asdict(item).items() if value is not None}
            for item in self.faults
        ]
        return result | {"num_faults": len(faults), "faults": faults}


def first_some(names: Sequence[str], shown: int = 3) -> str:
    """Return the first few of some names and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
