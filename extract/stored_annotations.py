"""Annotations of a recording that is being built, read back from the store.

The threads that feed and write read them. What a thread of glibc has freed stays with it, so that
the text of hours of words, read once, would be kept for the rest of a build.
"""

from pathlib import Path

from laughstore.annotations import Annotations, read_annotations
from laughstore.folders import LocalFolder
from laughstore.memory import release_free_memory

MANY_WORDS = 5_000
"""Of half an hour. Reading them takes a tenth of a second; less is not worth giving back: builds of
recordings of 2 s became 1.3 times as long."""


def stored_annotations(
    store: Path, annotations_id: str, split: str, recording_id: str
) -> Annotations:
    """Return a recording's annotations; free memory is given back where there are many words.

    Raises:
        CorruptData: as `read_annotations`.
    """
    found = read_annotations(LocalFolder(store), annotations_id, split, recording_id)
    if len(found.words or ()) >= MANY_WORDS:
        release_free_memory()
    return found
