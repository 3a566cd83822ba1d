import csv
import hashlib
import json
from collections import defaultdict

import numpy as np
import pytest
import soundfile

from extract.datasets import open_dataset
from extract.synthetic.corpus import write_synthetic_corpus
from extract.synthetic.voices import Track, Voice
from laughstore.errors import ConfigError
from laughstore.naming import recording_id

EPISODES = {"train": 3, "test": 1}
SECONDS = 40


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lines = []
    out = tmp_path_factory.mktemp("synthetic") / "corpus"
    written = write_synthetic_corpus(
        out, episodes=EPISODES, seconds=SECONDS, seed=3, progress=lines.append
    )
    assert written == out
    assert len(lines) == sum(EPISODES.values())
    return open_dataset(out)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_corpus_is_a_data_set_without_gaps(corpus):
    assert [r.split for r in corpus.recordings] == ["train"] * 3 + ["test"]
    for recording in corpus.recordings:
        assert recording.problem is None
        assert recording.notes == ()
        annotations = recording.annotations()
        assert annotations.duration_us == SECONDS * 1_000_000
        assert len(annotations.speakers) == 2
        assert annotations.words
        assert all(word.speaker is not None for word in annotations.words)
        assert annotations.turns
        assert len(annotations.turns) > 2
        for track in recording.tracks.values():
            info = soundfile.info(str(track.path))
            assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
            assert info.frames == SECONDS * 24_000


def test_names_are_as_odd_as_real_ones_and_shows_are_not_shared_by_splits(corpus):
    names = [recording.name for recording in corpus.recordings]
    assert any("," in name and "." in name and " " in name for name in names)
    splits = defaultdict(set)
    for recording in corpus.recordings:
        splits[recording.group].add(recording.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len({recording_id(name) for name in names}) == len(names)


@pytest.mark.slow
def test_each_speaker_laughs_three_to_six_percent_of_the_time(tmp_path):
    shares = []
    for recording in open_dataset(
        write_synthetic_corpus(tmp_path / "c", episodes={"train": 6})
    ).recordings:
        annotations = recording.annotations()
        for speaker in annotations.speakers:
            laughs = [
                event.end_us - event.start_us
                for event in annotations.events
                if event.label == "Laughter" and event.speaker == speaker.name
            ]
            shares.append(sum(laughs) / annotations.duration_us)
    assert 0.03 < np.mean(shares) < 0.06
    assert min(shares) > 0.015


def test_events_are_as_long_as_in_podcastfillers_and_distractors_are_among_them(corpus):
    kinds = defaultdict(list)
    for recording in corpus.recordings:
        events = recording.annotations().events
        assert list(events) == sorted(events, key=lambda event: event.start_us)
        for event in events:
            kinds[event.label, event.full_label].append(event.end_us - event.start_us)
    assert set(kinds) == {("Laughter", "Laughter"), ("Breath", "Breath"), ("", "Noise")}
    assert all(150_000 <= length <= 2_000_000 for lengths in kinds.values() for length in lengths)
    assert min(kinds["Laughter", "Laughter"]) >= 300_000


def test_laughs_do_not_wait_for_the_end_of_a_turn(corpus):
    inside = 0
    for recording in corpus.recordings:
        annotations = recording.annotations()
        for event in annotations.events:
            inside += event.label == "Laughter" and any(
                turn.start_us + 500_000 < event.start_us < turn.end_us - 1_000_000
                for turn in annotations.turns or ()
            )
    assert inside >= 4


def test_nobody_speaks_during_their_own_laugh(corpus):
    for recording in corpus.recordings:
        annotations = recording.annotations()
        for event in annotations.events:
            own = [s for s in annotations.segments if s.speaker == event.speaker]
            overlapping = [
                s for s in own if s.start_us < event.end_us and s.end_us > event.start_us
            ]
            assert [(s.start_us, s.end_us) for s in overlapping] == [(event.start_us, event.end_us)]


def test_a_track_is_silent_where_its_speaker_is(corpus):
    recording = corpus.recordings[0]
    annotations = recording.annotations()
    for name, track in recording.tracks.items():
        samples, _ = soundfile.read(track.path)
        quiet = np.ones(samples.size, bool)
        for segment in annotations.segments:
            if segment.speaker == name:
                first, stop = (int(t * 0.024) for t in (segment.start_us, segment.end_us))
                assert np.abs(samples[first:stop]).max() > 1e-3
                quiet[max(first - 1_500, 0) : stop + 1_500] = False
        assert quiet.mean() > 0.2
        assert not samples[quiet].any()
        assert np.abs(samples).max() < 0.75


def centroid_and_periodicity(samples):
    """Return the spectral centroid (Hz) and the highest autocorrelation at 60 to 400 Hz."""
    power = np.abs(np.fft.rfft(samples * np.hanning(samples.size), 2 * samples.size)) ** 2
    hz = np.arange(power.size) * 12_000 / (power.size - 1)
    correlation = np.fft.irfft(power)
    return (hz * power).sum() / power.sum(), correlation[60:400].max() / correlation[0]


def test_laughter_is_breathier_and_brighter_than_speech():
    measured = defaultdict(list)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        for kind in ("speak", "laugh", "breathe", "cough"):
            track = Track(Voice.random(rng), 24_000, rng)
            getattr(track, kind)(0.1, 0.9)
            sound = track.render()
            assert np.isfinite(sound).all()
            voiced = [
                centroid_and_periodicity(piece)
                for piece in sound[2_400:21_600].reshape(-1, 1_920)
                if np.square(piece).mean() > 0.1 * np.square(sound).mean()
            ]
            measured[kind].append(np.median(voiced, axis=0))
    (speech, laugh, breath, cough) = (np.median(measured[kind], axis=0) for kind in measured)
    assert laugh[0] > 1.3 * speech[0]
    assert breath[0] > 1.1 * laugh[0]
    assert cough[0] > 1.1 * laugh[0]
    assert speech[1] > 0.7 > laugh[1] > max(breath[1], cough[1])


@pytest.mark.parametrize(("kind", "low", "high"), [("speak", 2.5, 5.5), ("laugh", 3.8, 6.2)])
def test_the_rhythm_is_that_of_syllables_and_of_laughter(kind, low, high):
    peaks = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        track = Track(Voice.random(rng), 24_000 * 5, rng)
        getattr(track, kind)(0.2, 4.8)
        loudness = np.square(track.render()).reshape(-1, 480).mean(axis=1)
        spectrum = np.abs(np.fft.rfft((loudness - loudness.mean()) * np.hanning(250), 4_096))
        hz = np.arange(spectrum.size) * 50 / 4_096
        band = (hz > 1.5) & (hz < 10)
        peaks.append(hz[band][spectrum[band].argmax()])
    assert low < np.median(peaks) < high


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    options = {"episodes": {"train": 1}, "seconds": 12}
    first, again, other = (
        digests(write_synthetic_corpus(tmp_path / name, seed=seed, **options))
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert first == again
    assert set(first) == set(other)
    assert {name for name in first if first[name] == other[name]} == {"LICENSE", "README.txt"}


def test_each_episode_has_its_own_voices(corpus):
    files = [file for recording in corpus.recordings for file in recording.tracks.values()]
    assert len({soundfile.read(file.path)[0].tobytes() for file in files}) == 8


def test_the_csv_of_all_events_agrees_with_the_event_files(corpus):
    with (corpus.path / "metadata" / "PodcastFillers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows[0]) == 17
    assert [row["pfID"] for row in rows] == [str(number) for number in range(len(rows))]
    for recording in corpus.recordings:
        own = [row for row in rows if row["podcast_filename"] == recording.name]
        events = recording.annotations().events
        assert [row["label_full_vocab"] for row in own] == [event.full_label for event in events]
        assert [row["label_consolidated_vocab"] for row in own] == [e.label for e in events]
        starts = [round(float(row["event_start_inepisode"]) * 1e6) for row in own]
        assert starts == [event.start_us for event in events]


def test_it_says_that_it_is_synthetic_and_holds_no_recording_of_a_person(corpus):
    assert "synthetic" in (corpus.path / "README.txt").read_text()
    assert "CC0" in (corpus.path / "LICENSE").read_text()


def test_transcripts_count_in_units_of_100_ns(corpus):
    (path,) = (corpus.path / "metadata" / "episode_transcripts" / "test").iterdir()
    assert json.loads(path.read_text())["duration"] == SECONDS * 10**7


def test_an_empty_folder_is_filled_and_one_that_holds_something_is_refused(tmp_path):
    out = tmp_path / "corpus"
    out.mkdir()
    write_synthetic_corpus(out, episodes={"test": 1}, seconds=10)
    before = digests(out)
    with pytest.raises(ConfigError, match="not an empty folder"):
        write_synthetic_corpus(out, episodes={"test": 1}, seconds=10)
    assert digests(out) == before


def test_a_run_that_is_interrupted_leaves_nothing(tmp_path):
    def interrupt(_line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic_corpus(
            tmp_path / "corpus", episodes={"train": 1}, seconds=10, progress=interrupt
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("laughs_per_minute", [0, 18])
def test_the_rarest_and_the_most_frequent_laughter_fit_in(tmp_path, laughs_per_minute):
    out = write_synthetic_corpus(
        tmp_path / "c", episodes={"x": 1}, seconds=20, laughs_per_minute=laughs_per_minute
    )
    (recording,) = open_dataset(out).recordings
    events = recording.annotations().events
    laughs = [event for event in events if event.label == "Laughter"]
    assert bool(laughs) == bool(laughs_per_minute)
    assert all(0 <= event.start_us < event.end_us <= 20_000_000 for event in events)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"episodes": {}}, "one split needs 1 or more"),
        ({"episodes": {"train": 2, "test": -1}}, "none less than 0"),
        ({"episodes": {"../x": 1}}, "names of splits"),
        ({"seconds": 9.9}, "10 to 600"),
        ({"seconds": float("nan")}, "10 to 600"),
        ({"laughs_per_minute": 19}, "0 to 18"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_a_value_that_cannot_work_is_refused_before_anything_is_written(tmp_path, change, said):
    with pytest.raises(ConfigError, match=said):
        write_synthetic_corpus(tmp_path / "corpus", **change)
    assert list(tmp_path.iterdir()) == []
