"""Audacity label tracks: `start<TAB>end<TAB>label` in seconds, one label a line.

A line that begins with a backslash holds the frequency range of the label before it and is skipped.
Source: "Importing and Exporting Labels" in the manual of Audacity.
"""

from pathlib import Path

from laughstore.errors import BadRecording

from .numbers import read_number, to_us
from .spans import AnnotationFile, SpanCollector
from .text import lines, read_text, stem

SUFFIX = ".txt"


def read_audacity(path: Path) -> AnnotationFile:
    """Return the labels of a label track; equal times make a point, an empty label stays empty.

    Raises:
        NotFound: no such file.
        BadRecording: it is no label track; the message names file and line.
    """
    spans = SpanCollector(path, "labels")
    for number, line in lines(path, read_text(path)):
        if not line.strip() or line.startswith("\\"):
            continue
        fields = line.split("\t", 2)
        if len(fields) < 2:
            raise BadRecording(
                f"{path}, line {number}: expected start, end and label with tabs between them (an"
                " Audacity label track); export the labels again, or give a .csv with a header"
            )
        # Old releases wrote the decimal comma of the system's language.
        start, end = (to_us(read_number(text, decimal_comma=True)) for text in fields[:2])
        spans.add(number, start, end, fields[2] if len(fields) > 2 else "")
    return spans.finish(stem(path, SUFFIX))


def is_label_track(path: Path) -> bool:
    """Tell whether a text file's first line is a label: folders hold README.txt and others too.

    Raises:
        NotFound: no such file.
        BadRecording: it cannot be read as text.
    """
    for _, line in lines(path, read_text(path)):
        if line.strip():
            fields = line.split("\t")
            times = [read_number(text, decimal_comma=True) for text in fields[:2]]
            return len(times) == 2 and None not in times
    # An empty file is a track without labels.
    return True
