"""Sound of a data set for the pages that `train` makes: read by `extract`, which it never meets."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import NotFound

if TYPE_CHECKING:
    from train.report.sound import ClipsOf


def dataset_clips(path: Path) -> "ClipsOf":
    """Return what gives the sound of a data set's recordings, all speakers together.

    Raises:
        NotFound, ConfigError: there is no data set at this path.
    """
    from extract.datasets import open_dataset
    from extract.roles import choose_roles
    from extract.sound.excerpts import MEDIA_TYPE, read_excerpts
    from train.report.sound import Clip

    recordings = {item.id: item for item in open_dataset(path).recordings}

    def clips(recording_id: str, spans_us: Sequence[tuple[int, int]]) -> list[Clip]:
        recording = recordings.get(recording_id)
        if recording is None:
            raise NotFound(f"{path} holds no recording with the id {recording_id}")
        recording.refuse_fault()
        (pair,) = choose_roles(recording, "mix").pairs
        track = pair.sides[1].open()
        assert track is not None, "a mix is heard in the place of the other speaker"
        try:
            found = read_excerpts(track, spans_us)
        finally:
            track.close()
        return [Clip(item.start_us, item.end_us, MEDIA_TYPE, item.mp3) for item in found]

    return clips
