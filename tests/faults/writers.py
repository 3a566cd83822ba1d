"""What children under the shim run: real writers of small stores, without a model.

Each goes on with a store that an earlier try has left behind.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from laughstore.buildplan import BuildPlan, begin_plan
from laughstore.commit import commit_annotations
from laughstore.errors import BadRecording
from laughstore.locks import StoreLocks
from laughstore.naming import recording_id
from laughstore.progress import NoProgress
from laughstore.sharing import Share, build_together
from laughstore.unit import UnitRecord, write_unit
from tests.stores import Episode, laugh, plan_for, random_features, spec_for, write_recording

SPEC = spec_for(8, block_frames=32, shard_frames=64)
TINY = (Episode("one", num_frames=70, events=(laugh(1, 2),), speakers=("A",)),)
ADDED = (Episode("later", num_frames=40, events=(laugh(0, 1),), speakers=("B",)),)
PAIR = (
    Episode("one", num_frames=130, events=(laugh(1, 2),)),
    Episode("two", "validation", num_frames=70, speakers=("A",)),
)
MANY = tuple(Episode(f"episode {i}", num_frames=30 + 10 * i, speakers=("A",)) for i in range(8))


def warm_up() -> None:
    """Import and set up what every child would, before it is forked."""
    with tempfile.TemporaryDirectory() as folder:
        build_tiny(Path(folder) / "store")


def build_tiny(store: Path) -> int:
    """One recording of one stream and two shards. Returns how many recordings it took."""
    return build(store, TINY)


def build_pair(store: Path) -> int:
    """Two splits, two speakers in one of them."""
    return build(store, PAIR)


def build_many(store: Path, *, pause_s: float = 0, bad: Sequence[str] = ()) -> int:
    """Eight recordings, to be shared by several processes; those named bad are left out."""
    return build(store, MANY, pause_s=pause_s, bad=bad)


def annotate(store: Path) -> int:
    """Give the first recording of a tiny store other events: a second generation."""
    changed = replace(TINY[0], events=(laugh(1, 2), laugh(3, 4)))
    with StoreLocks(store) as locks, locks.exclusive():
        item = {recording_id(changed.name): changed.annotations}
        return commit_annotations(store, item).generation


def add(store: Path) -> int:
    """Add a recording to a tiny store: a second generation."""
    first = {"train": 2}
    plan = plan_for(ADDED, SPEC, first_shards=first)
    return _build(store, begin_plan(store, plan, 2), ADDED, number=2)


def build(
    store: Path, episodes: Sequence[Episode], *, pause_s: float = 0, bad: Sequence[str] = ()
) -> int:
    """Build as `laughstore build` does, together with other processes that do the same."""
    plan = begin_plan(store, plan_for(episodes, SPEC))
    return _build(store, plan, episodes, pause_s=pause_s, bad=bad)


def _build(
    store: Path,
    plan: BuildPlan,
    episodes: Sequence[Episode],
    *,
    number: int = 1,
    pause_s: float = 0,
    bad: Sequence[str] = (),
) -> int:
    by_id = {recording_id(episode.name): episode for episode in episodes}
    num_taken = 0

    def write(share: Share) -> None:
        nonlocal num_taken
        while (planned := share.take()) is not None:
            num_taken += 1
            episode = by_id[planned.id]
            time.sleep(pause_s)
            if episode.name in bad:
                reason = str(BadRecording(f"{episode.name} cannot be read"))
                write_unit(store, UnitRecord(planned.id, "quarantined", reason))
            else:
                write_recording(store, plan, planned, episode, random_features(SPEC.dim))

    with StoreLocks(store) as locks:
        build_together(store, plan, locks, write, number=number, progress=NoProgress())
    return num_taken
