"""Annotation files of other tools, as events of a recording.

In: files that people made with Praat (`.TextGrid`), ELAN (`.eaf`), Audacity (`.txt` label tracks),
a spreadsheet or a script (`.csv`, `.tsv`), or a diarizer (`.rttm`). Out: `Annotations` with changed
events (and segments), for a new generation of a store. Nothing is written here.

    source = read_annotation_source(paths)               what the files say
    rule = EventRule.of(source, event="Laughter")        which spans are events, of which class
    found = match_recordings(source.by_recording, [(recording.id, recording.name), ...])
    new = annotate_recording(old, source.by_recording[name], rule, mode="replace").annotations

The rules, all of them:

1. **Times** are exact integer microseconds, rounded half to even from the decimals that are
   written (an RTTM or CSV end is start + duration, added before rounding). A file that cannot be
   understood is an error that names file and line. A single row that cannot be used (time negative
   or no finite number, end before start) is dropped, and counted in `notes` with the line. Where
   old events are to be replaced, such a row refuses its recording (rule 6).
2. **Recording**: a TextGrid, .eaf or Audacity file is of one recording, whose name is the file's
   name without its ending. CSV has a column for it, or else is named so too; RTTM always has it.
3. **Class** of a span: its label when that is a well-known class in any case, with or without
   brackets (`laughter`, `[laughs]`, RTTM's `laugh` are all `Laughter`); else the class that its
   tier is named after (`Laughter`, `SPEAKER_00 Laughter`, `laughter@Ann`); else the label as
   written. Without either, and for points, which have no length, there is no event; they are
   counted. So are labels that end with `?`: somebody, or a run, proposed them, and nobody accepted
   them. Empty intervals of a TextGrid are the gaps between its labels.
4. **One class only** (`event`): the spans of this class are taken and the others left out. When no
   span of the whole source is of it, every span becomes one: labels such as `x` or `ha ha` need no
   renaming. (If some are of other well-known classes, this is an error: the class may be misspelt.
   So are labels that look like a transcript, and SPEAKER lines of RTTM alone.)
5. **Speaker**: the speaker column, ELAN's PARTICIPANT or RTTM's name. Else the tier, when its name
   is, begins or ends with the name of a speaker of the recording (`SPEAKER_00:Laughter`). Else
   unknown. Names are those of the recording, whatever their case.
6. **Replace** puts the events of a source in the place of the old ones of the same classes and
   leaves other classes alone, in every recording that the source names: a TextGrid without a laugh
   says that there is none; SPEAKER lines of a recording alone do not. A recording with a dropped
   row that may be one of these events (of a table: every recording of the file, when the row does
   not say whose it is), or with points alone for a class it had events of, is refused and keeps its
   old events: they would be lost for nothing else. **Merge** adds what is not there. SPEAKER lines
   of RTTM do the same with the diarization segments; who is a main speaker was settled when the
   features were built, and words keep their speakers.
"""

from .events import (
    AnnotatedRecording,
    Mode,
    annotate_recording,
    doubts,
    to_events,
    to_segments,
)
from .matching import Matches, match_recordings
from .rules import EventRule, event_class, well_known
from .source import (
    AnnotationSource,
    read_annotation_file,
    read_annotation_source,
    source_files,
)
from .spans import AnnotationFile, DroppedRow, LabelledSpan

__all__ = [
    "AnnotatedRecording",
    "AnnotationFile",
    "AnnotationSource",
    "DroppedRow",
    "EventRule",
    "LabelledSpan",
    "Matches",
    "Mode",
    "annotate_recording",
    "doubts",
    "event_class",
    "match_recordings",
    "read_annotation_file",
    "read_annotation_source",
    "source_files",
    "to_events",
    "to_segments",
    "well_known",
]
