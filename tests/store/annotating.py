"""Annotations and files of them, for tests: few lines each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from laughstore.annotation_formats import AnnotationSource, LabelledSpan, read_annotation_file
from laughstore.annotations import Annotations, Event, Segment, Speaker

FILES = Path(__file__).parent / "annotation_files"
SPEAKERS = ("SPEAKER_00", "SPEAKER_01")


def times_of(found: Sequence[LabelledSpan]) -> list[tuple[int, int, str]]:
    return [(span.start_us, span.end_us, span.label) for span in found]


def write_file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def old_notes(**changes: object) -> Annotations:
    laugh, breath = an_event(1, 2, "Laughter"), an_event(4, 5, "Breath")
    plain = Annotations(
        recording="show",
        duration_us=60_000_000,
        speakers=(Speaker("SPEAKER_00", 30_000_000), Speaker("SPEAKER_01", 20_000_000)),
        events=(laugh, breath),
        segments=(Segment(0, 9_000_000, "SPEAKER_00"),),
    )
    return replace(plain, **changes)  # pyright: ignore[reportArgumentType]


def an_event(start_s: int, end_s: int, label: str, speaker: str | None = "SPEAKER_00") -> Event:
    return Event(start_s * 1_000_000, end_s * 1_000_000, label, label, speaker)


def a_span(start_s: int, end_s: int, label: str, **fields: object) -> LabelledSpan:
    found = LabelledSpan(None, start_s * 1_000_000, end_s * 1_000_000, label)
    return replace(found, **fields)  # pyright: ignore[reportArgumentType]


def a_source(folder: Path, *found: LabelledSpan) -> AnnotationSource:
    item = read_annotation_file(write_file(folder, "show.txt", ""))
    return AnnotationSource((replace(item, spans=found),))


def seconds(us: int) -> str:
    return f"{us // 10**6}.{us % 10**6:06d}"


def textgrid(found: Sequence[tuple[int, int, str]], *, short: bool) -> str:
    def value(name: str, written: object) -> str:
        return f"{written}\n" if short else f"        {name} = {written} \n"

    def quoted(label: str) -> str:
        return '"' + label.replace('"', '""') + '"'

    content = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n' + value("xmin", 0)
    content += value("xmax", 10**9) + ("<exists>\n" if short else "tiers? <exists> \n")
    content += value("size", 1) + value("class", '"IntervalTier"') + value("name", '"a"')
    content += value("xmin", 0) + value("xmax", 10**9) + value("intervals: size", len(found))
    for number, (start, end, label) in enumerate(found):
        content += "" if short else f"    intervals [{number + 1}]:\n"
        content += value("xmin", seconds(start)) + value("xmax", seconds(end))
        content += value("text", quoted(label))
    return content
