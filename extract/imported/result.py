"""What an import did."""

from dataclasses import dataclass

from laughstore.buildplan import SkippedRecording


@dataclass(frozen=True)
class ImportResult:
    """What an import did."""

    num_imported: int
    """Recordings written by this run; the others had been finished before."""
    num_values: int
    """Numbers written by this run."""
    num_rounded: int
    """Of these, numbers that no bfloat16 is equal to: the nearest one is stored."""
    left_out: tuple[SkippedRecording, ...]
    """Recordings that are not in the store, with the reason."""
    was_finished: bool
    """The store had been finished before: what was left out then stays out."""
    notes: tuple[str, ...] = ()
    """What is odd about recordings without stopping an import, one line each."""
