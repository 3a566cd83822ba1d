"""One corpus in three layouts: the same annotations, the same sound."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from extract.datasets import open_dataset
from extract.sound.tracks import AudioTrack
from extract.synthetic.corpus import write_synthetic_corpus
from laughstore.timebase import SAMPLE_RATE

from .sound_writers import read

SECONDS = 10


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The same two recordings as per-speaker, podcastfillers and manifest."""
    root = tmp_path_factory.mktemp("layouts")
    corpus = write_synthetic_corpus(
        root / "corpus", episodes={"train": 1, "test": 1}, seconds=SECONDS, seed=5
    )
    shutil.copytree(
        corpus / "metadata/episode_transcripts", root / "pf/metadata/episode_transcripts"
    )
    shutil.copy(corpus / "metadata/PodcastFillers.csv", root / "pf/metadata")
    (root / "stereo").mkdir()
    lines = []
    for recording in open_dataset(corpus).recordings:
        waves = [soundfile.read(file.path)[0] for _, file in sorted(recording.tracks.items())]
        mix = root / f"pf/audio/episode_wav/{recording.split}/{recording.name}.wav"
        mix.parent.mkdir(parents=True)
        soundfile.write(mix, np.sum(waves, axis=0), SAMPLE_RATE, subtype="FLOAT")
        stereo = root / f"stereo/{recording.id}.wav"
        soundfile.write(stereo, np.stack(waves, axis=1), SAMPLE_RATE, subtype="PCM_16")
        lines.append(json.dumps(manifest_line(recording, stereo.relative_to(root))))
    (root / "manifest.jsonl").write_text("\n".join(lines))
    return tuple(open_dataset(path) for path in (corpus, root / "pf", root / "manifest.jsonl"))


def span(item, **more):
    return {"start_s": item.start_us / 1e6, "end_s": item.end_us / 1e6} | more


def manifest_line(recording, stereo):
    known = recording.annotations()
    speakers = sorted(recording.tracks)
    return {
        "name": recording.name,
        "split": recording.split,
        "speakers": [
            {"name": name, "audio": {"path": str(stereo), "channel": channel}}
            for channel, name in enumerate(speakers)
        ],
        "events": [
            span(item, label=item.label, full_label=item.full_label, speaker=item.speaker)
            for item in known.events
        ],
        "segments": [span(item, speaker=item.speaker) for item in known.segments],
        "turns": [span(item, speaker=item.speaker) for item in known.turns],
        "words": [span(item, text=item.text) for item in known.words],
        "intervals": [
            {
                "speaker": item.speaker,
                "event_start_s": item.event_start_us / 1e6,
                "turn_start_s": item.turn_start_us / 1e6,
                "end_s": item.end_us / 1e6,
            }
            for item in known.intervals
        ],
    }


def test_the_recordings_are_the_same(datasets):
    assert [item.layout for item in datasets] == ["per-speaker", "podcastfillers", "manifest"]
    for same in zip(*(dataset.recordings for dataset in datasets), strict=True):
        assert len({(item.id, item.name, item.split, item.group) for item in same}) == 1
        assert all(item.problem is None for item in same)


def test_the_annotations_are_the_same_as_far_as_each_layout_tells_them(datasets):
    for tracks, published, manifest in zip(*(d.recordings for d in datasets), strict=True):
        known = tracks.annotations()
        assert manifest.annotations() == known
        assert published.annotations() == replace(
            known,
            speakers=(),
            events=tuple(replace(item, speaker=None) for item in known.events),
            segments=(),
            turns=None,
            intervals=None,
            words=tuple(replace(item, speaker=None) for item in known.words),
        )


def test_the_sound_is_the_same(datasets):
    def samples(file):
        with AudioTrack(file) as track:
            return read(track, track.info.num_frames)

    for tracks, published, manifest in zip(*(d.recordings for d in datasets), strict=True):
        heard = {name: samples(file) for name, file in tracks.tracks.items()}
        for name, wave in heard.items():
            assert np.array_equal(samples(manifest.tracks[name]), wave)
        assert np.abs(samples(published.mix) - sum(heard.values())).max() < 1e-6
