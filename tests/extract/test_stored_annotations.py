from pathlib import Path

import pytest

from extract import stored_annotations as module
from extract.stored_annotations import MANY_WORDS, stored_annotations
from laughstore.annotations import Annotations, Speaker, Word, write_annotations


@pytest.mark.parametrize(("num_words", "releases"), [(None, 0), (3, 0), (MANY_WORDS, 1)])
def test_memory_is_given_back_where_there_are_many_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_words: int | None, releases: int
) -> None:
    called: list[None] = []
    monkeypatch.setattr(module, "release_free_memory", lambda: called.append(None))
    words = None if num_words is None else (Word(0, 1, "so", "a"),) * num_words
    notes = Annotations("talk", 10, (Speaker("a", 5),), words=words)
    annotations_id = write_annotations(tmp_path, notes, "train", "x")
    assert stored_annotations(tmp_path, annotations_id, "train", "x") == notes
    assert len(called) == releases
