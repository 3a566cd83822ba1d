"""Who is heard as whom, for each policy of speakers; recordings are lines of a real manifest."""

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from extract.datasets import DIARIZATIONS, DatasetRecording, open_dataset
from extract.feeding import TrackReader
from extract.roles import Pair, Side, choose_roles
from extract.sound.tracks import AudioFile
from laughstore.errors import BadRecording
from laughstore.naming import MIX

from .sound_writers import read
from .trees import Tree, diarization

LEVELS = {"Ann": 0.125, "Bo": 0.25, "Cy": 0.5}
"""Each sounds like one number, so that a sum tells who is in it."""
MIX_LEVEL = 0.75


def recording(
    root: Path, *speakers: str, tracks: Sequence[str] | None = None, mix: bool = False
) -> DatasetRecording:
    """A recording of these speakers, who speak the longer the earlier they are named."""
    for name, level in [*LEVELS.items(), ("mix", MIX_LEVEL)]:
        soundfile.write(root / f"{name}.wav", np.full(4_000, level, np.float32), 24_000)
    listed: list[dict[str, Any]] = []
    for place, name in enumerate(speakers):
        item: dict[str, Any] = {"name": name, "total_s": 0.1 - 0.01 * place}
        if tracks is None or name in tracks:
            item["audio"] = f"{name}.wav"
        listed.append(item)
    line: dict[str, Any] = {"name": "talk", "split": "train", "events": [], "speakers": listed}
    if mix:
        line["audio"] = "mix.wav"
    if not speakers:
        del line["speakers"]
    (root / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    (found,) = open_dataset(root).recordings
    return found


def level(track: TrackReader | None) -> float | None:
    """What an open side sounds like; it is closed."""
    if track is None:
        return None
    wave = read(track, 2)
    track.close()
    assert (wave == wave[0]).all()
    return float(wave[0])


def heard(pair: Pair) -> list[float | None]:
    return [level(track) for track in pair.open()]


def test_top2_is_the_two_who_speak_longest_each_main_once(tmp_path: Path) -> None:
    roles = choose_roles(recording(tmp_path, "Bo", "Cy", "Ann", mix=True), "top2")
    (pair,) = roles.pairs
    assert [side.speaker for side in pair.sides] == ["Bo", "Cy"]
    assert heard(pair) == [LEVELS["Bo"], LEVELS["Cy"]]
    assert pair.num_assignments == 2
    assert [(a.name, a.main, a.other) for a in roles.assignments] == [
        ("bo--cy", "Bo", "Cy"),
        ("cy--bo", "Cy", "Bo"),
    ]
    assert roles.files == (AudioFile(tmp_path / "Bo.wav"), AudioFile(tmp_path / "Cy.wav"))
    assert not roles.is_mix
    assert not roles.notes


def test_a_third_speaker_without_a_track_matters_to_all_pairs_only(tmp_path: Path) -> None:
    three = recording(tmp_path, "Bo", "Cy", "Ann", tracks=["Bo", "Cy"])
    assert len(choose_roles(three, "top2").assignments) == 2
    with pytest.raises(BadRecording, match="no track of Ann, who would be main"):
        choose_roles(three, "all-pairs")


def test_a_longest_speaker_without_a_track_stops_top2_though_there_is_a_mix(
    tmp_path: Path,
) -> None:
    one = recording(tmp_path, "Bo", "Cy", "Ann", tracks=["Cy", "Ann"], mix=True)
    with pytest.raises(BadRecording, match="no track of Bo"):
        choose_roles(one, "top2")


def test_all_pairs_is_every_ordered_pair_once_each_pair_of_sides_heard_once(
    tmp_path: Path,
) -> None:
    roles = choose_roles(recording(tmp_path, "Bo", "Cy", "Ann"), "all-pairs")
    assert len(roles.pairs) == 3
    assert all(pair.num_assignments == 2 for pair in roles.pairs)
    mains = [(a.main, a.other) for a in roles.assignments]
    assert sorted(mains) == sorted(permutations(("Ann", "Bo", "Cy"), 2))
    # Assignment a of a pair has its side a as main.
    for number, pair in enumerate(roles.pairs):
        names = tuple(side.speaker for side in pair.sides)
        assert mains[2 * number : 2 * number + 2] == [names, names[::-1]]
        assert heard(pair) == [LEVELS[str(name)] for name in names]
    assert len({a.name for a in roles.assignments}) == 6
    assert len(roles.files) == 3


@pytest.mark.parametrize("policy", ["top2", "all-pairs"])
def test_one_speaker_is_main_once_beside_silence_and_it_is_said(
    tmp_path: Path, policy: Any
) -> None:
    roles = choose_roles(recording(tmp_path, "Bo"), policy)
    (pair,) = roles.pairs
    assert heard(pair) == [LEVELS["Bo"], None]
    assert pair.num_assignments == 1
    (only,) = roles.assignments
    assert (only.name, only.main, only.other) == ("bo--silence", "Bo", None)
    assert roles.notes == ("one speaker (Bo); the other is silence",)


@pytest.mark.parametrize("speakers", [("Bo", "Cy"), ()])
@pytest.mark.parametrize("policy", ["top2", "all-pairs", "mix"])
def test_a_recording_without_tracks_is_heard_as_its_mix_and_it_is_said(
    tmp_path: Path, policy: Any, speakers: tuple[str, ...]
) -> None:
    roles = choose_roles(recording(tmp_path, *speakers, tracks=[], mix=True), policy)
    assert_is_mix(roles.pairs, MIX_LEVEL)
    assert roles.is_mix
    (only,) = roles.assignments
    assert (only.name, only.main, only.other) == ("silence--mix", MIX, None)
    assert len(roles.notes) == (policy != "mix")
    assert all("\n" not in note for note in roles.notes)


def assert_is_mix(pairs: Sequence[Pair], expected: float) -> None:
    (pair,) = pairs
    assert heard(pair) == [None, expected]
    assert pair.num_assignments == 1, "silence is main; the mix never is"
    assert [side.speaker for side in pair.sides] == [None, None], "nobody's words are fed"


def test_policy_mix_takes_the_file_of_the_mix_though_there_are_tracks(tmp_path: Path) -> None:
    roles = choose_roles(recording(tmp_path, "Bo", "Cy", mix=True), "mix")
    assert_is_mix(roles.pairs, MIX_LEVEL)
    assert not roles.notes


def test_policy_mix_adds_all_tracks_up_when_there_is_no_file_of_it_and_says_so(
    tmp_path: Path,
) -> None:
    roles = choose_roles(recording(tmp_path, "Bo", "Cy", "Ann"), "mix")
    assert_is_mix(roles.pairs, sum(LEVELS.values()))
    assert roles.notes == ("no file of the whole sound: 3 tracks are added up to the mix",)
    alone = choose_roles(recording(tmp_path, "Cy"), "mix")
    assert_is_mix(alone.pairs, LEVELS["Cy"])


def test_tracks_of_nobody_are_not_added_up_where_a_diarization_tells_who_speaks(
    tmp_path: Path,
) -> None:
    tree = Tree(tmp_path / "data").episode()
    tree.track("everybody")
    tree.track("SPEAKER_02")
    roles = choose_roles(tree.only, "mix")
    assert [file.path.stem for file in roles.files] == ["SPEAKER_00", "SPEAKER_01"]
    assert roles.notes == (
        "no file of the whole sound: 2 tracks are added up to the mix",
        "tracks of nobody in the diarization are not in the mix: SPEAKER_02, everybody",
    )
    tree.annotation(DIARIZATIONS).unlink()
    assert len(choose_roles(tree.only, "mix").files) == 4, "nobody knows who is somebody"
    statistics = {"Ann": {"total_time": 1.0}}
    tree.write(DIARIZATIONS, diarization(speaker_statistics=statistics))
    with pytest.raises(BadRecording, match=r"none of its tracks \(.*\) is of a speaker"):
        choose_roles(tree.only, "mix")


def test_a_recording_without_any_sound_cannot_be_heard(tmp_path: Path) -> None:
    silent = recording(tmp_path, "Bo", "Cy", tracks=[])
    with pytest.raises(BadRecording, match="talk: no sound"):
        choose_roles(silent, "mix")
    with pytest.raises(BadRecording, match="no track of Bo and Cy"):
        choose_roles(silent, "top2")


def test_sides_that_were_opened_are_closed_when_a_later_one_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = recording(tmp_path, "Bo", "Cy")
    opened: list[Any] = []
    from extract import roles as module

    real = module.AudioTrack

    def watched(file: AudioFile) -> Any:
        track = real(file)
        close = track.close
        opened.append([track, False])
        entry = opened[-1]

        def close_and_tell() -> None:
            entry[1] = True
            close()

        monkeypatch.setattr(track, "close", close_and_tell)
        return track

    monkeypatch.setattr(module, "AudioTrack", watched)
    gone = AudioFile(tmp_path / "gone.wav")
    first = Side("Bo", (AudioFile(tmp_path / "Bo.wav"),))
    with pytest.raises(BadRecording):
        Pair((first, Side("Cy", (gone,))), 2).open()
    with pytest.raises(BadRecording):
        Side(None, (AudioFile(tmp_path / "Cy.wav"), gone)).open()
    assert [closed for _, closed in opened] == [True, True]
    (pair,) = choose_roles(good, "top2").pairs
    assert heard(pair) == [LEVELS["Bo"], LEVELS["Cy"]]
    assert [closed for _, closed in opened] == [True] * 4


def test_silence_is_no_track_and_a_sum_is_of_everybody(tmp_path: Path) -> None:
    recording(tmp_path, "Bo", "Cy")
    assert Side(None, ()).open() is None
    both = Side(None, tuple(AudioFile(tmp_path / f"{name}.wav") for name in ("Bo", "Cy"))).open()
    assert level(both) == LEVELS["Bo"] + LEVELS["Cy"]
