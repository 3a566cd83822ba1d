"""Folders of spots: what a person sees, what they said, what it makes of annotations."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.annotation_formats import Mode, read_annotation_file, read_annotation_source
from laughstore.annotation_formats.source import SPOTS_FILE
from laughstore.annotations import Annotations, Event, Speaker
from laughstore.bouts import Times
from laughstore.errors import BadRecording, ConfigError, CorruptData, NotFound
from laughstore.spots import (
    Clip,
    Spot,
    SpotFolder,
    find_spot_folder,
    read_verdicts,
    revise_from_spots,
)
from laughstore.spots.folder import SILENCE_US
from laughstore.spots.label_files import label_texts
from tests.stores import SPEAKERS, laugh

A, B = SPEAKERS
NAME = 'Dr. Who, "live"_Ep 1. Chelle B.'
SECOND = 1_000_000


def spot(rank, start_s, end_s, *, reel_s=None, name=NAME, speaker: str | None = A, **changes):
    """A spot with 2 s of sound around it, if it is heard."""
    start_us, end_us = round(start_s * SECOND), round(end_s * SECOND)
    clip = None
    if reel_s is not None:
        length_us = end_us - start_us + 4 * SECOND
        clip = Clip(f"clips/{rank:04d}.wav", start_us - 2 * SECOND, reel_s * SECOND, length_us)
    asked = None if speaker is None else (speaker,)
    fields = {"split": "train", "assignment": "a--b", "speaker": speaker, "asked": asked}
    return Spot(
        rank,
        f"id-{name[:2]}",
        name,
        start_us=start_us,
        end_us=end_us,
        score=1 - rank / 100,
        clip=clip,
        **(fields | changes),
    )


def folder_of(
    path, spots, label_file="spots.TextGrid", event="Laughter", *, are_windows=False, names=None
):
    """A folder of these spots on disk, without its sound."""
    path.mkdir(exist_ok=True)
    names = names or {"label": "Laughter", "full_label": "Laughter"}
    folder = SpotFolder(
        path,
        label_file,
        event,
        are_windows=are_windows,
        classes=("Breath", "Laughter", "Music"),
        run="RUN",
        index_id="0" * 64,
        generation=1,
        threshold=0.5,
        spots=tuple(spots),
        **names,
    )
    (path / SPOTS_FILE).write_bytes(folder.to_bytes())
    (path / "spots.csv").write_text(folder.table())
    for name, text in label_texts(folder, {}).items():
        (path / name).write_text(text)
    return folder


FOUR = [
    spot(1, 10, 11.2, reel_s=1),
    spot(2, 14, 15, reel_s=8),  # its clip begins before the first one's ends
    spot(3, 100, 100.5, name="Other_2", speaker=B),  # no sound
    spot(4, 33.04, 33.12, reel_s=20, name="Other_2", speaker=B),
]
FORMATS = ["spots.TextGrid", "spots.txt"]


def edit(folder, *pairs):
    path = folder.labels_path
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)


def audacity(folder, *labels):
    folder.labels_path.write_text("".join(f"{a}\t{b}\t{text}\n" for a, b, text in labels))


def annotations(*events, name=NAME):
    return Annotations(name, 200 * SECOND, (Speaker(A, 9), Speaker(B, 5)), events=events)


def revised(folder, old, mode: Mode = "replace", event=None):
    names, revise = revise_from_spots(folder, read_verdicts(folder), mode=mode, event=event)
    assert old.recording in names
    return revise(old.recording, old)


def test_the_sealed_file_gives_back_what_was_written(tmp_path):
    folder = folder_of(tmp_path / "spots", FOUR)
    assert SpotFolder.open(folder.path) == folder
    data = (folder.path / SPOTS_FILE).read_bytes()
    (folder.path / SPOTS_FILE).write_bytes(data.replace(b"10000000", b"10000001"))
    with pytest.raises(CorruptData, match="altered"):
        SpotFolder.open(folder.path)
    with pytest.raises(NotFound, match="no folder of spots"):
        SpotFolder.open(tmp_path)


def test_the_table_has_every_spot_and_its_times_in_the_recording(tmp_path):
    folder = folder_of(tmp_path / "spots", FOUR)
    rows = list(csv.DictReader(io.StringIO(folder.table())))
    assert [row["recording"] for row in rows] == [NAME, NAME, "Other_2", "Other_2"]
    assert (rows[0]["start_s"], rows[0]["end_s"]) == ("10.000000", "11.200000")
    assert (rows[0]["clip"], rows[0]["clip_start_s"]) == ("clips/0001.wav", "8.000000")
    assert (rows[2]["clip"], rows[2]["spots_wav_s"]) == ("", "")
    assert rows[3]["speaker"] == B


@pytest.mark.parametrize("label_file", FORMATS)
def test_untouched_labels_say_nothing_and_change_nothing(tmp_path, label_file):
    folder = folder_of(tmp_path / "spots", FOUR, label_file)
    spans = [
        span
        for span in read_annotation_file(folder.labels_path).spans
        if span.tier in (None, "spots")
    ]
    assert [(span.start_us, span.end_us, span.label) for span in spans] == [
        (3_000_000, 4_200_000, "Laughter?"),
        (10_000_000, 11_000_000, "Laughter?"),
        (22_000_000, 22_080_000, "Laughter?"),
    ]
    verdicts = read_verdicts(folder)
    assert (verdicts.accepted, verdicts.decided, verdicts.num_undecided) == ((), (), 3)
    assert "3 undecided (a label ends with ?: left out)" in verdicts.describe()
    assert list(revise_from_spots(folder, verdicts, mode="replace")[0]) == []


def test_where_nothing_was_heard_nothing_was_said(tmp_path):
    folder = folder_of(tmp_path / "spots", [FOUR[2]])
    folder.labels_path.unlink()
    assert read_verdicts(folder).decided == ()


@pytest.mark.parametrize("label_file", FORMATS)
def test_what_stands_beside_the_labels_is_not_read_back(tmp_path, label_file):
    folder = folder_of(tmp_path / "spots", [*FOUR, spot(5, 12.5, 13)], label_file)
    known = {1: Times(np.array([8_500_000]), np.array([9_250_000]))}
    texts = label_texts(folder, known)
    for name, text in texts.items():
        (folder.path / name).write_text(text)
    both = "".join(texts.values())
    shown = NAME.replace('"', '""') if label_file.endswith("Grid") else NAME
    assert f"1: {shown} 10.00 s, {A}, 0.99" in both
    assert "annotated Laughter" in both
    assert both.count("spot 5") == 2  # it lies in two clips
    if label_file == "spots.txt":  # Audacity exports every label track into one file
        folder.labels_path.write_text(both)
    assert read_verdicts(folder).num_undecided == 3


@pytest.mark.parametrize("label_file", FORMATS)
def test_accepted_rejected_and_undecided_are_told_apart(tmp_path, label_file):
    folder = folder_of(tmp_path / "spots", FOUR, label_file)
    deleted = "" if label_file.endswith("Grid") else "\n"
    if deleted:
        edit(folder, ("Laughter?", "Laughter"), ("10.000000\t11.000000\tLaughter?\n", ""))
    else:
        edit(folder, ('"Laughter?"', '"Laughter"'), ('"Laughter?"', '""'))
    verdicts = read_verdicts(folder)
    assert [item.rank for item in verdicts.decided] == [1, 2]
    assert (verdicts.num_rejected, verdicts.num_undecided) == (1, 1)
    assert "of 3 spots 1 accepted, 1 rejected (no label left), 1 undecided" in verdicts.describe()
    old = annotations(laugh(50, 51), laugh(60, 61, B))
    new = revised(folder, old)
    assert new.annotations == replace(old, events=(*old.events, laugh(10, 11.2, A)))
    assert revised(folder, new.annotations).annotations == new.annotations


def test_a_textgrid_as_praat_saves_it_anew_is_read(tmp_path):
    folder = folder_of(tmp_path / "spots", FOUR)
    short = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", "25", "<exists>"]
    short += ["1", '"IntervalTier"', '"spots"', "0", "25", "3", "0", "2.75", '""']
    short += ["2.75", "4.5", '"laughter"', "4.5", "25", '""']
    folder.labels_path.write_text("\n".join(short), encoding="utf-16")
    (accepted,) = read_verdicts(folder).accepted
    assert (accepted.start_us, accepted.end_us) == (9_750_000, 11_500_000)


def test_a_textgrid_whose_tier_was_renamed_is_refused(tmp_path):
    folder = folder_of(tmp_path / "spots", FOUR)
    edit(folder, ('name = "spots"', 'name = "mine"'))
    with pytest.raises(BadRecording, match="no label on tier 'spots', and some on clips, mine"):
        read_verdicts(folder)


def test_labels_beyond_a_clip_are_cut_to_what_was_heard(tmp_path):
    folder = folder_of(tmp_path / "spots", FOUR, "spots.txt")
    audacity(folder, (0.9, 7, "Laughter"), (12.9, 13.4, "Laughter"))
    accepted = read_verdicts(folder).accepted
    assert [(item.start_us, item.end_us) for item in accepted] == [
        (8_000_000, 13_200_000),
        (16_900_000, 17_000_000),
    ]


def test_every_moment_of_a_clip_finds_its_way_back():
    clip = FOUR[3].clip
    assert clip is not None

    @given(st.integers(0, clip.length_us))
    @settings(max_examples=30)
    def check(offset_us):
        time_us = clip.start_us + offset_us
        assert clip.in_recording(clip.in_reel(time_us)) == time_us

    check()


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ((6.5, 7.5, "Laughter"), "6.500000 s: the label 'Laughter' lies in no clip"),
        ((3, 10, "Laughter"), "lies in several clips"),
        ((0.1, 0.2, "Laughter?"), "lies in no clip"),
        ((3, 3, "Laughter"), "has no length"),
        ((3, 2, "Laughter"), "ends before it starts"),
    ],
)
def test_a_label_that_means_no_clip_is_refused_with_its_time(tmp_path, label, said):
    folder = folder_of(tmp_path / "spots", FOUR, "spots.txt")
    audacity(folder, (22, 22.08, "Laughter?"), label)
    with pytest.raises(BadRecording, match=said):
        read_verdicts(folder)


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("laughter", laugh(10, 11, A)),
        ("[laughs]", laugh(10, 11, A)),
        ("Laughter SPEAKER_01", laugh(10, 11, B)),
        ("laughter:speaker_01", laugh(10, 11, B)),
        ("breath", Event(10 * SECOND, 11 * SECOND, "Breath", "Breath", A)),
    ],
)
def test_a_label_is_a_class_alone_or_with_a_speaker(tmp_path, text, event):
    folder = folder_of(tmp_path / "spots", FOUR, "spots.txt")
    audacity(folder, (3, 4, text), (10, 11, "Laughter?"))
    assert revised(folder, annotations()).annotations.events == (event,)


@pytest.mark.parametrize("text", ["Laugther", "x", "LaughterSPEAKER_01", "Laughter Bob", ""])
def test_a_word_that_is_no_class_refuses_its_recording(tmp_path, text):
    folder = folder_of(tmp_path / "spots", FOUR, "spots.txt")
    audacity(folder, (3, 4, text), (10, 11, "Laughter?"))
    with pytest.raises(BadRecording, match="is none of the classes \\(Laughter, Breath, Music\\)"):
        revised(folder, annotations())


def test_where_the_label_does_not_say_whose_nobody_is_guessed(tmp_path):
    both = spot(1, 10, 11, reel_s=1, speaker=None, asked=(A, B))
    folder = folder_of(tmp_path / "spots", [both], "spots.txt")
    audacity(folder, (3, 4, "Laughter"))
    new = revised(folder, annotations())
    assert new.annotations.events == (laugh(10, 11, None),)
    assert "1 of 1 events have no speaker" in new.notes[0]
    audacity(folder, (3, 4, f"Laughter {B}"))
    # What was accepted without a speaker before is replaced.
    assert revised(folder, new.annotations).annotations.events == (laugh(10, 11, B),)


def test_a_second_round_replaces_what_the_first_one_put_at_decided_spots(tmp_path):
    folder = folder_of(tmp_path / "spots", FOUR, "spots.txt")
    first = (laugh(10, 11, A), laugh(14, 15, A), laugh(10, 11, B), laugh(50, 51, A))
    breath = Event(10 * SECOND, 11 * SECOND, "Breath", "Breath", A)
    old = annotations(*first, breath)
    audacity(folder, (3.25, 4.5, "Laughter"), (10, 11, "Laughter?"))
    kept = (laugh(14, 15, A), laugh(10, 11, B), laugh(50, 51, A), breath)
    assert revised(folder, old).annotations.events == (*kept, laugh(10.25, 11.5, A))
    merged = revised(folder, old, mode="merge").annotations.events
    assert merged == (*first, breath, laugh(10.25, 11.5, A))
    audacity(folder, (10, 11, "Laughter?"))  # the first one is rejected after all
    assert revised(folder, old).annotations.events == kept


def test_one_class_alone_can_be_taken(tmp_path):
    folder = folder_of(tmp_path / "spots", FOUR, "spots.txt")
    audacity(folder, (3, 4, "Laughter"), (10, 11, "Breath"))
    old = annotations(laugh(14, 15, A))
    assert revised(folder, old, event="Breath").annotations.events == (
        laugh(14, 15, A),
        Event(14 * SECOND, 15 * SECOND, "Breath", "Breath", A),
    )
    assert revised(folder, old, event="laughter").annotations.events == (laugh(10, 11, A),)


def test_a_window_is_no_event_until_somebody_marks_the_event_in_it(tmp_path):
    folder = folder_of(tmp_path / "spots", FOUR, "spots.txt", are_windows=True)
    text = folder.labels_path.read_text()
    assert text.count("Laughter begins here?") == 3
    assert read_verdicts(folder).num_undecided == 3
    folder.labels_path.write_text(text.replace("?", "", 1))
    with pytest.raises(BadRecording, match="'Laughter begins here' is none of the classes"):
        revised(folder, annotations())


def test_a_class_of_the_full_vocabulary_keeps_both_of_its_names(tmp_path):
    names = {"label": "Words", "full_label": "Cough"}
    folder = folder_of(tmp_path / "spots", FOUR, "spots.txt", "full:Cough", names=names)
    assert "Cough?" in folder.labels_path.read_text()
    audacity(folder, (3, 4, "Cough"), (10, 11, "Cough?"))
    words = Event(10 * SECOND, 11 * SECOND, "Words", "Words", A)
    cough = Event(10 * SECOND, 11 * SECOND, "Words", "Cough", A)
    new = revised(folder, annotations(words)).annotations
    assert new.events == (words, cough)


def test_the_folder_is_found_by_itself_or_by_a_file_of_labels_in_it(tmp_path):
    folder = folder_of(tmp_path / "spots", FOUR, "spots.txt")
    other = folder.path / "labels of Ann.txt"
    other.write_text("3\t4\tLaughter\n")
    assert find_spot_folder([folder.path]) == (folder, folder.labels_path)
    assert find_spot_folder([other]) == (folder, other)
    assert find_spot_folder([tmp_path]) is None
    for wrong in ("spots.csv", "clips.txt", SPOTS_FILE):
        with pytest.raises(ConfigError, match="is not what is corrected"):
            find_spot_folder([folder.path / wrong])
    with pytest.raises(ConfigError, match="alone"):
        find_spot_folder([folder.path, other])


def test_a_folder_of_spots_is_never_read_as_other_annotations(tmp_path):
    folder = folder_of(tmp_path / "spots", FOUR, "spots.txt")
    (tmp_path / "mine.csv").write_text("recording,start,end,label\nx,1,2,Laughter\n")
    for path in (tmp_path, folder.path, folder.path / "spots.csv", folder.labels_path):
        with pytest.raises(ConfigError, match="folder of laughstore spots"):
            read_annotation_source(path)


def test_the_silence_between_clips_is_whole_frames():
    assert SILENCE_US % 80_000 == 0
