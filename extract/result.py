"""What a build did. No torch here: a parent of workers reads it too."""

from dataclasses import dataclass

from laughstore.buildplan import SkippedRecording


@dataclass(frozen=True)
class BuildResult:
    """What a build did."""

    num_built: int
    """Recordings extracted by this run; the others had been finished before."""
    left_out: tuple[SkippedRecording, ...]
    """Recordings that are not in the store, with the reason; of a part that is not the last to
    end: its own."""
    was_finished: bool = False
    """The store had been finished before: what was left out then stays out."""
    notes: tuple[str, ...] = ()
    """What is odd about recordings without stopping a build, one line each."""
    missing: tuple[str, ...] = ()
    """Names of recordings that other parts have not finished; then the store is not finished."""
