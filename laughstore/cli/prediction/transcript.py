"""The words of a recording, for runs that hear text: from a transcript, as those of main and other.

Formats: a transcript of PodcastFillers' form (`.json`), which does not say who speaks; or any file
of spans that laughstore reads (`.csv`, `.tsv`, `.TextGrid`, `.eaf`, `.rttm`, `.txt`), a word a
span, its speaker in a column or as the name of its tier.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.annotation_files import read_words
from extract.text import text_stream

from ...annotation_formats import read_annotation_file
from ...annotation_formats.text import stem
from ...annotations import Word
from ...errors import BadRecording
from ...spec import TextMode
from .heard import MAIN, OTHER, Heard
from .opened import Encode


def read_transcript(path: Path, heard: Heard) -> tuple[Word, ...]:
    """Return a transcript's words, each of `main`, of `other` or of nobody who is heard.

    A speaker is main or other when they are called so, or as the file of that track is. A
    transcript that names nobody, or one speaker alone, is main's, if nobody else is heard.

    Raises:
        NotFound: there is no such file.
        BadRecording: it cannot be read, or its speakers cannot be told apart.
    """
    if path.suffix.lower() == ".json":
        words = read_words(path)
    else:
        spans = read_annotation_file(path).spans
        words = tuple(
            Word(span.start_us, span.end_us, span.label, span.speaker or span.tier)
            for span in spans
            if span.kind == "event"
        )
    roles = {role.casefold(): role for role in heard.files}
    called = {role: stem(file, file.suffix).casefold() for role, file in heard.files.items()}
    # Tracks in folders of their own may be called the same: such a name is of neither.
    names = list(called.values())
    roles |= {name: role for role, name in called.items() if names.count(name) == 1}
    return _assigned(path, words, roles, has_other=OTHER in heard.files)


def _assigned(
    path: Path, words: Sequence[Word], roles: Mapping[str, str], *, has_other: bool
) -> tuple[Word, ...]:
    names = {word.speaker for word in words if word.speaker is not None}
    known = {name for name in names if name.casefold() in roles}
    if not known and not has_other and len(names) <= 1:
        return tuple(Word(word.start_us, word.end_us, word.text, MAIN) for word in words)
    if words and not known:
        who = ", ".join(sorted(names)[:5]) or "nobody"
        raise BadRecording(
            f"{path}: its speakers ({who}) are none of those that are heard"
            f" ({', '.join(sorted(set(roles)))}); name them {MAIN} and {OTHER}"
        )
    return tuple(
        Word(word.start_us, word.end_us, word.text, roles[word.speaker.casefold()])
        for word in words
        if word.speaker in known and word.speaker is not None
    )


def text_of(
    words: Sequence[Word], mode: TextMode, num_frames: int, encode: Encode
) -> NDArray[np.int16]:
    """Return i16[2, T], the text of main and of other."""
    assert mode != "none", "there is no text to make"
    return np.stack(
        [text_stream(words, who, num_frames, mode, encode).codes for who in (MAIN, OTHER)]
    )
