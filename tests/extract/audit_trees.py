"""A clean corpus that tests of the audit spoil, and every fault that they plant in it."""

import json
import shutil

import numpy as np
import soundfile

from extract.audit.dataset import audit_dataset
from extract.datasets import DIARIZATIONS, EVENTS, INTERVALS, TRANSCRIPTS, TURNS
from extract.synthetic.corpus import write_synthetic_corpus
from laughstore.naming import recording_id

RATE = 24_000
KINDS_OF_FILES = (DIARIZATIONS, EVENTS, INTERVALS, TRANSCRIPTS, TURNS)
A, B = "SPEAKER_00", "SPEAKER_01"
EPISODES = {"train": 3, "validation": 1, "test": 1}
NAMES = ["Synthetic train talk 1_Episode 2", "Synthetic train talk 2_Episode 1"]
FIRST = NAMES[0]


class Tree:
    """A clean corpus that a test spoils; by default one episode of its training split."""

    def __init__(self, root):
        self.root = root

    def path(self, kind, name=FIRST, split="train"):
        folder = self.root / "metadata" / kind / split
        return folder / name / "metadata.json" if kind == DIARIZATIONS else folder / f"{name}.json"

    def load(self, kind, **where):
        return json.loads(self.path(kind, **where).read_text())

    def change(self, kind, change, **where):
        content = self.load(kind, **where)
        change(content)
        self.path(kind, **where).write_text(json.dumps(content))

    def track(self, speaker=A, name=FIRST, split="train"):
        return self.root / "audio/episode_wav_dial" / split / name / f"{speaker}.wav"

    def mix(self, name=FIRST, split="train"):
        return self.root / "audio/episode_wav" / split / f"{name}.wav"

    def sound(self, speaker=A, **where):
        return soundfile.read(self.track(speaker, **where), dtype="float32")[0]

    def write(self, path, samples, subtype="PCM_16"):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, RATE, subtype=subtype)

    def write_mix(self, **where):
        self.write(self.mix(**where), self.sound(A, **where) + self.sound(B, **where))

    def laugh(self):
        """The first laugh of the episode: its event, and where its samples are."""
        events = self.load(EVENTS)["events"]
        event = next(e for e in events if e["label_consolidated_vocab"] == "Laughter")
        start = int(event["event_start_inepisode"] * RATE)
        return event, slice(start, int(event["event_end_inepisode"] * RATE) + 1)

    def change_laugh(self, **changes):
        def change(content):
            laughs = [e for e in content["events"] if e["label_consolidated_vocab"] == "Laughter"]
            laughs[0] |= changes

        self.change(EVENTS, change)

    def spoil(self, edit, speaker=None, subtype="PCM_16"):
        """Edit the samples of the laugh in its speaker's (or another) track."""
        event, place = self.laugh()
        speaker = speaker or event["speaker_id"]
        samples = self.sound(speaker)
        samples[place] = edit(samples[place])
        self.write(self.track(speaker), samples, subtype)
        return speaker

    def rename(self, new, old=FIRST, split="train", *, to_split=None):
        """Rename an episode, and move it to another split if asked."""
        to_split = to_split or split
        moves = [(self.track(A, old, split).parent, self.track(A, new, to_split).parent)]
        for kind in KINDS_OF_FILES:
            before, after = self.path(kind, old, split), self.path(kind, new, to_split)
            if kind == DIARIZATIONS:
                before, after = before.parent, after.parent
            moves.append((before, after))
        for before, after in moves:
            after.parent.mkdir(parents=True, exist_ok=True)
            before.rename(after)

    def audit(self, **settings):
        return audit_dataset(self.root, **settings)


def clean_corpus(root, *, table=False):
    """Write a corpus without a fault, with or without the table of the published layout."""
    write_synthetic_corpus(root, episodes=EPISODES, seconds=15, laughs_per_minute=16)
    if not table:
        (root / "metadata" / "PodcastFillers.csv").unlink()
    return root


def kinds(report):
    return {finding.kind for finding in report.findings}


def finding(report, kind):
    return next(item for item in report.findings if item.kind == kind)


def _other_group(tree):
    tree.rename("Dr. Nobody, Live (test)_No. 2")


def _copy_to_test(tree):
    name = "Synthetic test talk 1_Episode 2"
    for speaker in (A, B):
        shutil.copytree(
            tree.track().parent, tree.track(name=name, split="test").parent, dirs_exist_ok=True
        )
        assert tree.track(speaker, name, "test").is_file()
    for kind in KINDS_OF_FILES:
        target = tree.path(kind, name, "test")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(tree.path(kind), target)


def _same_id(tree):
    names = ("Talk~(=(!!+", "Talk~!=)((+")  # found by trying 60,000
    assert len({recording_id(name) for name in names}) == 1
    for new, old in zip(names, NAMES, strict=True):
        tree.rename(new, old)


def _unit_us(tree):
    def change(content):
        content["duration"] //= 10

    tree.change(TRANSCRIPTS, change)


def _no_diarization(tree):
    tree.path(DIARIZATIONS).unlink()


def _no_test_split(tree):
    tree.rename("Other_1", "Dr. Nobody, Live (test)_No. 1, the pilot", "test", to_split="train")
    for folder in tree.root.glob("*/*/test"):
        folder.rmdir()


def _no_laughs(tree):
    def change(content):
        for event in content["events"]:
            if event["label_consolidated_vocab"] == "Laughter":
                event["label_consolidated_vocab"] = "laugh"

    tree.change(EVENTS, change, name="Dr. Nobody, Live (test)_No. 1, the pilot", split="test")


def _remove(kind):
    def plant(tree):
        tree.path(kind).unlink()

    return plant


def _mix_only(tree):
    tree.write_mix()
    shutil.rmtree(tree.track().parent)


def _no_speaker(tree):
    tree.change_laugh(speaker_id=None)


def _odd_speaker(tree):
    tree.change_laugh(speaker_id="speaker 1")


def _silence_laugh(tree):
    tree.spoil(lambda x: 0 * x)


def _silence_most(tree):
    def edit(x):
        x[: round(0.7 * len(x))] = 0
        return x

    tree.spoil(edit)


def _lower_laugh(tree):
    noise = np.random.default_rng(0).standard_normal(RATE).astype("f4") * 5e-4
    tree.spoil(lambda x: noise[: len(x)])


def _of_nobody_in_no_track(tree):
    for speaker in (A, B):
        tree.spoil(lambda x: 0 * x, speaker)
    _no_speaker(tree)


def _silent_in_mix(tree):
    for speaker in (A, B):
        tree.spoil(lambda x: 0 * x, speaker)
    _mix_only(tree)


def _silent_track(tree):
    speaker = tree.laugh()[0]["speaker_id"]
    tree.write(tree.track(speaker), 0 * tree.sound(speaker))


def _nan(tree):
    tree.spoil(lambda x: x * np.nan, subtype="FLOAT")


def _stated(tree):
    tree.change(DIARIZATIONS, lambda content: content.update(original_duration=17.5))


def _short_track(tree):
    speaker = B if tree.laugh()[0]["speaker_id"] == A else A
    tree.write(tree.track(speaker), tree.sound(speaker)[: 13 * RATE])


def _add_event(**changes):
    def plant(tree):
        def change(content):
            content["events"].append(content["events"][0] | changes)

        tree.change(EVENTS, change)

    return plant


def _late_words(tree):
    def change(content):
        words = content["segments"][0]["nbest"][0]["words"]
        words.append({"text": "bye", "offset": 161_000_000, "duration": 3_000_000})

    tree.change(TRANSCRIPTS, change)


def _other_transcript(tree):
    tree.change(TRANSCRIPTS, lambda content: content.update(duration=3 * content["duration"]))


def _same_tracks(tree):
    shutil.copy(tree.track(A, NAMES[1]), tree.track("SPEAKER_02", NAMES[1]))


def _unused_track(tree):
    tree.track("SPEAKER_02").write_text("no sound")


def _track_of_nobody(tree):
    tree.write(tree.track("everybody"), tree.sound(A) + tree.sound(B))


def _one_speaker(tree):
    def only_a(items):
        return [item for item in items if item["speaker_id"] == A]

    def diarization(content):
        del content["speaker_statistics"][B]
        content["segments"] = [item | {"speaker_id": A} for item in content["segments"]]

    tree.change(DIARIZATIONS, diarization)
    tree.track(B).unlink()
    tree.change(EVENTS, lambda content: content.update(events=only_a(content["events"])))


def _third_speaker(tree):
    def change(content):
        content["speaker_statistics"]["SPEAKER_02"] = {"total_time": 0.5}

    tree.change(DIARIZATIONS, change)
    event, place = tree.laugh()
    samples = np.zeros(15 * RATE, np.float32)
    samples[place] = tree.sound(event["speaker_id"])[place]
    tree.write(tree.track("SPEAKER_02"), samples)
    tree.change_laugh(speaker_id="SPEAKER_02")


def _unspoken_word(tree):
    def change(content):
        words = content["segments"][0]["nbest"][0]["words"]
        words.append({"text": "er", "offset": 149_999_000, "duration": 0})

    tree.change(TRANSCRIPTS, change)


def _tag(tree):
    def change(content):
        content["segments"][0]["nbest"][0]["words"][0]["text"] = "[laughter]"

    tree.change(TRANSCRIPTS, change)


def _clip(tree):
    tree.spoil(lambda x: np.clip(50 * x, -1, 1))


def _odd_name(tree):
    tree.rename("Line\nfeed_1")


def _mix_without_diarization(tree):
    name = "Dr. Nobody, Live (test)_No. 1, the pilot"
    tree.path(DIARIZATIONS, name, "test").unlink()
    tree.write_mix(name=name, split="test")
    shutil.rmtree(tree.track(name=name, split="test").parent)


PLANTS = {
    "group-in-two-splits": _other_group,
    "sound-in-two-splits": _copy_to_test,
    "id-twice": _same_id,
    "transcript-unit": _unit_us,
    "left-out": _no_diarization,
    "missing-split": _no_test_split,
    "no-laughs": _no_laughs,
    "no-words": _remove(TRANSCRIPTS),
    "no-intervals": _remove(INTERVALS),
    "no-turns": _remove(TURNS),
    "no-tracks": _mix_only,
    "laughs-of-nobody": _no_speaker,
    "laughs-of-unknown": _odd_speaker,
    "laughs-silent": _silence_laugh,
    "laughs-cut": _silence_most,
    "laughs-quiet": _lower_laugh,
    "sound-damaged": _nan,
    "stated-duration": _stated,
    "track-lengths": _short_track,
    "events-behind-end": _add_event(event_start_inepisode=15.0, event_end_inepisode=15.2),
    "words-behind-end": _late_words,
    "transcript-length": _other_transcript,
    "sound-twice": _same_tracks,
    "other-sound": _unused_track,
    "tracks-of-nobody": _track_of_nobody,
    "one-speaker": _one_speaker,
    "third-laughs": _third_speaker,
    "events-empty": _add_event(event_start_inepisode=3.0, event_end_inepisode=3.0),
    "events-twice": _add_event(),
    "events-cut": _add_event(
        event_start_inepisode=14.8, event_end_inepisode=15.3, label_consolidated_vocab=""
    ),
    "records-dropped": _add_event(event_start_inepisode=None),
    "words-of-nobody": _unspoken_word,
    "laugh-tags": _tag,
    "laughs-clipped": _clip,
    "odd-name": _odd_name,
}
"""Faults that come alone."""
PLANTS_WITH_OTHERS = {
    "no-segments": (_mix_without_diarization, {"no-segments", "no-tracks"}),
    "laughs-in-no-track": (_of_nobody_in_no_track, {"laughs-in-no-track", "laughs-of-nobody"}),
    "laughs-silent-in-mix": (_silent_in_mix, {"laughs-silent-in-mix", "no-tracks"}),
    "track-silent": (_silent_track, {"track-silent", "laughs-silent"}),
}
BESIDE = {
    "words-behind-end": {"words-of-nobody"},
    "sound-twice": {"tracks-of-nobody"},
    "other-sound": {"tracks-of-nobody"},
}
