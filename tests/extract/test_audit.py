"""Each fault that an audit knows is planted in a clean corpus, alone, and found, alone."""

import json
import logging
import shutil
import subprocess
import sys

import pytest

from extract.audit.dataset import audit_dataset
from extract.audit.findings import KINDS, Findings
from extract.audit.look import look_at
from extract.config import BuildConfig
from extract.datasets import DIARIZATIONS, EVENTS, INTERVALS, TRANSCRIPTS, TURNS, open_dataset
from extract.survey import survey
from laughstore.errors import ConfigError, NotFound

from .audit_trees import (
    BESIDE,
    EPISODES,
    FIRST,
    NAMES,
    PLANTS,
    PLANTS_WITH_OTHERS,
    B,
    Tree,
    clean_corpus,
    finding,
    kinds,
)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return clean_corpus(tmp_path_factory.mktemp("audit") / "clean")


@pytest.fixture
def tree(clean, tmp_path):
    return Tree(shutil.copytree(clean, tmp_path / "data"))


def test_a_clean_corpus_has_no_findings_and_its_contents_are_told(clean):
    report = audit_dataset(clean)
    assert report.findings == ()
    assert report.is_whole
    assert (report.layout, report.left_out, report.notes) == ("per-speaker", (), ())
    assert {name: split.recordings for name, split in report.splits.items()} == EPISODES
    train = report.splits["train"]
    assert (train.can_be_built, train.streams, train.speakers) == (3, 6, {"2": 3})
    assert train.audio_us == 45_000_000
    assert train.has == {"tracks": 3, "segments": 3, "words": 3, "turns": 3, "intervals": 3}
    assert train.groups == {
        "Dr. Nobody, Live (train)": 1,
        "Synthetic train talk 1": 1,
        "Synthetic train talk 2": 1,
    }
    assert report.sample_rates == {24_000: 10}
    tree = Tree(clean)
    rows = [
        event
        for name in (recording.name for recording in open_dataset(clean).recordings[:3])
        for event in tree.load(EVENTS, name=name)["events"]
    ]
    for label in ("Laughter", "Breath"):
        count = sum(row["label_consolidated_vocab"] == label for row in rows)
        assert train.events[label] == count
    assert train.events["full:Noise"] == sum(row["label_full_vocab"] == "Noise" for row in rows)
    num_laughs = sum(split.events["Laughter"] for split in report.splits.values())
    assert report.audibility.recordings == 5
    assert report.audibility.laughs == report.audibility.audible == num_laughs
    assert report.laugh_gaps.num_laughs == num_laughs
    assert json.loads(json.dumps(report.to_json()))["whole"] is True


@pytest.mark.parametrize("kind", PLANTS)
def test_a_planted_fault_is_found_and_nothing_else(tree, kind):
    PLANTS[kind](tree)
    report = tree.audit()
    assert kinds(report) - BESIDE.get(kind, set()) == {kind}, report.findings
    found = finding(report, kind)
    assert found.count >= 1
    assert found.total is None or found.total >= found.count
    assert 1 <= len(found.examples) <= 3
    assert all("\n" not in line for line in found.examples)
    assert report.is_whole == all(item.level == "note" for item in report.findings)
    assert found.level == KINDS[kind].level


@pytest.mark.parametrize("kind", PLANTS_WITH_OTHERS)
def test_a_fault_that_brings_others_is_found(tree, kind):
    plant, expected = PLANTS_WITH_OTHERS[kind]
    plant(tree)
    assert kinds(tree.audit()) == expected


def test_every_kind_of_finding_is_planted_here():
    planted = {*PLANTS, *PLANTS_WITH_OTHERS, "remark"}
    assert planted == set(KINDS)


def test_words_in_another_unit_are_found_though_the_duration_is_right(tree):
    def change(content):
        for word in [word for item in content["segments"] for word in item["nbest"][0]["words"]]:
            word |= {"offset": word["offset"] // 10, "duration": word["duration"] // 10}

    tree.change(TRANSCRIPTS, change)
    found = finding(tree.audit(), "transcript-unit")
    assert found.count == 1
    assert "the end of the last word is " in found.examples[0]
    assert found.examples[0].endswith("the unit seems to be us")
    tree.change(TRANSCRIPTS, lambda content: content.update(duration="PT15S"))
    assert "transcript-unit" in kinds(tree.audit())


def test_findings_are_told_errors_first_then_gaps_then_notes(tree):
    PLANTS["laugh-tags"](tree)
    tree.path(INTERVALS).unlink()
    PLANTS["transcript-unit"](tree)
    report = tree.audit()
    assert [item.level for item in report.findings] == ["error", "gap", "note"]
    assert not report.is_whole


def test_the_sample_is_drawn_by_seed_and_may_be_empty(tree):
    PLANTS["laughs-silent"](tree)
    assert kinds(tree.audit(audio_sample=0)) == set()
    assert kinds(tree.audit(audio_sample=10**9)) == {"laughs-silent"}
    found = {}
    for seed in range(6):
        report = tree.audit(audio_sample=1, seed=seed)
        assert report.audibility.recordings == 1
        assert report.findings == tree.audit(audio_sample=1, seed=seed).findings
        found[seed] = bool(report.findings)
    assert set(found.values()) == {True, False}


@pytest.mark.parametrize("bad", [{"audio_sample": -1}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(tree, bad):
    with pytest.raises(ConfigError, match="must be 0 or more"):
        tree.audit(**bad)


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(NotFound):
        audit_dataset(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="expected"):
        audit_dataset(tmp_path)


def test_recordings_are_left_out_as_a_build_leaves_them_out(tree):
    tree.path(DIARIZATIONS).unlink()
    tree.track(B, NAMES[1]).write_bytes(b"RIFF")
    tree.path(EVENTS, "Dr. Nobody, Live (test)_No. 1, the pilot", "test").write_text("{")
    report = tree.audit()
    built = survey(BuildConfig(tree.root, tree.root / "store"))
    assert len(report.left_out) == 3
    assert report.left_out == built.skipped
    assert kinds(report) == {"left-out"}
    assert finding(report, "left-out").total == 5
    contents = {name: split.can_be_built for name, split in report.splits.items()}
    assert contents == {"train": 1, "validation": 1, "test": 0}


def test_annotations_that_no_reader_takes_are_left_out_as_by_a_build(tree, monkeypatch):
    monkeypatch.setattr("laughstore.annotations.MAX_BYTES", 1000)
    left_out = tree.audit().left_out
    assert left_out == survey(BuildConfig(tree.root, tree.root / "store")).skipped
    assert "bytes of annotations, readers take 1000" in left_out[0].reason


def test_policies_change_who_is_main(tree):
    PLANTS["third-laughs"](tree)
    assert kinds(tree.audit(speakers="all-pairs")) == set()
    assert tree.audit(speakers="all-pairs").splits["train"].streams == 2 + 2 + 6
    report = tree.audit(speakers="mix")
    assert kinds(report) == set()
    assert report.splits["train"].streams == 3
    assert report.splits["train"].speakers == {"2": 2, "3+": 1}


def _publish(root):
    """The clean corpus as published: mixes, one table; the tables of episodes are left out."""
    tree = Tree(clean_corpus(root, table=True))
    for recording in open_dataset(root).recordings:
        tree.write_mix(name=recording.name, split=recording.split)
    shutil.rmtree(root / "audio/episode_wav_dial")
    for kind in (DIARIZATIONS, EVENTS, INTERVALS, TURNS):
        shutil.rmtree(root / "metadata" / kind)
    return tree


def test_the_published_layout_tells_what_it_cannot_have(tmp_path):
    tree = _publish(tmp_path / "published")
    report = tree.audit()
    assert report.layout == "podcastfillers"
    assert kinds(report) == {"no-intervals", "no-segments", "no-tracks", "no-turns"}
    assert all(item.count == item.total == 5 for item in report.findings)
    assert all(item.level == "note" for item in report.findings)
    assert report.is_whole
    assert report.splits["train"].speakers == {"0": 3}
    assert report.splits["train"].events_of_nobody == {}
    assert report.audibility.laughs == report.audibility.audible > 0
    assert report.laugh_gaps.num_laughs == report.audibility.laughs
    assert "no-tracks" not in kinds(tree.audit(speakers="mix"))

    table = (tree.root / "metadata/PodcastFillers.csv").read_text().splitlines()
    own = tree.root / "metadata/episode_annotations/train" / f"{FIRST}.csv"
    own.parent.mkdir(parents=True)
    rows = [line for line in table if FIRST in line]
    own.write_text("\n".join([table[0], *rows[:-1]]))
    report = tree.audit()
    assert finding(report, "remark").count == 1
    assert FIRST in finding(report, "remark").examples[0]


def test_annotations_without_any_audio_are_told_recording_by_recording(tree):
    shutil.rmtree(tree.root / "audio")
    report = tree.audit()
    assert kinds(report) == {"left-out"}
    assert len(report.left_out) == 5
    assert all("no audio" in item.reason for item in report.left_out)


def test_dropped_records_are_told_once_and_loggers_stay_as_they_were(tree, caplog):
    PLANTS["records-dropped"](tree)
    log = logging.getLogger("extract")
    before = (list(log.handlers), log.level, log.propagate)
    log.setLevel(logging.ERROR)  # as with --quiet
    try:
        report = tree.audit()
        assert log.level == logging.ERROR
    finally:
        log.setLevel(before[1])
    assert (list(log.handlers), log.level, log.propagate) == before
    assert finding(report, "records-dropped").count == 1
    assert "1 events dropped" in finding(report, "records-dropped").examples[0]
    assert caplog.records == []


def test_what_is_read_of_a_recording_is_not_kept_in_the_data_set(clean):
    recording = open_dataset(clean).recordings[0]
    before = dict(vars(recording))
    looked = look_at(recording, "top2")
    assert looked.annotations.segments
    assert vars(recording) == before


def test_no_torch_is_loaded(tree):
    code = (
        "import sys; from pathlib import Path; from extract.audit.dataset import audit_dataset\n"
        f"report = audit_dataset(Path({str(tree.root)!r}))\n"
        "assert report.audibility.laughs\n"
        "heavy = {'torch', 'torchaudio', 'moshi', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_examples_are_one_short_line_without_control_characters():
    found = Findings()
    for _ in range(5):
        found.add("left-out", f"a\nb \x1b[2J {'long ' * 100}")
    (only,) = found.all()
    assert (only.count, len(only.examples)) == (5, 3)
    assert only.examples[0].isprintable()
    assert len(only.examples[0]) == 300
