"""`annotate`, `add`, `gc` and `export` on a store that was built from audio."""

import csv
import errno
import glob
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from laughstore import layout, open_shards, open_store
from laughstore.evolution.generations import kept_generations
from laughstore.files import TEMPORARY_MARK, sha256_file
from laughstore.locks import StoreLocks
from tests.cli.conftest import EPISODES


def contents(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): sha256_file(path)
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != layout.LOCK
    }


def features(store: Path) -> dict[str, tuple[int, int, int]]:
    """What tells whether a file below the arrays and shards was ever written again."""
    found = {}
    for pattern in ("features.zarr/**/*", "codes.zarr/**/*", "shards/*.tar"):
        for path in store.glob(pattern):
            status = path.stat()
            if path.is_file():
                found[str(path)] = status.st_ino, status.st_mtime_ns, status.st_size
    return found


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    """A copy of the built store that a test may change."""
    subprocess.run(["cp", "-a", str(built), str(tmp_path / "store")], check=True)
    return tmp_path / "store"


@pytest.fixture(scope="module")
def part(corpus: Path, nano_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the validation split alone; tests copy it."""
    from laughstore.cli.main import main

    store = tmp_path_factory.mktemp("part") / "store"
    model = ["--model", str(nano_checkpoint)]
    words = ["build", str(corpus), "--store", str(store), "--split", "validation", "-q", *model]
    assert main(words) == 0
    return store


@pytest.fixture(scope="module")
def whole(
    part: Path, corpus: Path, nano_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """That store after an addition that nothing disturbed; tests must not change it."""
    from laughstore.cli.main import main

    store = tmp_path_factory.mktemp("whole") / "store"
    subprocess.run(["cp", "-a", str(part), str(store)], check=True)
    assert main(["add", str(store), str(corpus), "--model", str(nano_checkpoint), "-q"]) == 0
    return store


@pytest.fixture
def small(part: Path, tmp_path: Path) -> Path:
    """A copy of the store of the validation split."""
    subprocess.run(["cp", "-a", str(part), str(tmp_path / "small")], check=True)
    return tmp_path / "small"


# annotate


def write_csv(path: Path, rows: list[tuple[str, float, float, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("recording", "start", "end", "label"), *rows])
    return path


def test_annotating_from_a_table_changes_labels_and_no_feature(run, store, tmp_path):
    old = open_store(store)
    name, other = old.recordings[0].name, old.recordings[1].name
    table = write_csv(tmp_path / "laughs.csv", [(name, 1.0, 2.5, "laughter")])
    before = features(store)
    code, out, err = run("annotate", store, "--from", table)
    assert (code, err) == (0, "")
    assert features(store) == before
    num_old = sum(event.label == "Laughter" for event in old.annotations(name).events)
    assert f"{name}: " in out
    assert f"Laughter {num_old} -> 1" in out
    assert "generation 2" in out
    new = open_store(store)
    laughs = [event for event in new.annotations(name).events if event.label == "Laughter"]
    assert [(event.start_us, event.end_us) for event in laughs] == [(1_000_000, 2_500_000)]
    others = [event for event in old.annotations(name).events if event.label != "Laughter"]
    assert [event for event in new.annotations(name).events if event.label != "Laughter"] == others
    assert new.annotations(other) == old.annotations(other)
    # The old generation opens by its number, and the shards folder alone says the newest.
    assert open_store(store, generation=1).annotations(name) == old.annotations(name)
    assert open_shards(store / "shards").generation == 2
    code, out, _ = run("inspect", store, "--json")
    assert json.loads(out)["generations"] == [1, 2]
    assert "generations kept: 1, 2" in run("inspect", store)[1]


def test_annotating_again_changes_nothing_and_says_so(run, store, tmp_path):
    name = open_store(store).recordings[0].name
    table = write_csv(tmp_path / "laughs.csv", [(name, 1.0, 2.5, "laughter")])
    assert run("annotate", store, "--from", table)[0] == 0
    before = contents(store)
    code, out, _ = run("annotate", store, "--from", table)
    assert code == 0
    assert "nothing changes" in out
    assert contents(store) == before


def test_names_that_match_nothing_are_left_over(run, store, tmp_path):
    name = open_store(store).recordings[0].name
    rows = [(name, 1.0, 2.5, "Laughter"), ("nobody", 1, 2, "Laughter")]
    table = write_csv(tmp_path / "laughs.csv", rows)
    code, out, _ = run("annotate", store, "--from", table, "--json")
    report = json.loads(out)
    assert (code, report["unmatched"], report["published"]) == (3, ["nobody"], True)
    assert report["changed"][0]["recording"] == name
    assert report["changed"][0]["events_after"]["Laughter"] == 1
    code, out, _ = run("annotate", store, "--from", table)
    assert code == 3
    assert "left over" in out


def test_a_dry_run_of_annotate_writes_nothing(run, store, tmp_path):
    name = open_store(store).recordings[0].name
    table = write_csv(tmp_path / "laughs.csv", [(name, 1.0, 2.5, "Laughter")])
    before = contents(store)
    code, out, _ = run("annotate", store, "--from", table, "--dry-run", "--json")
    report = json.loads(out)
    assert (code, report["published"], report["generation"]) == (0, False, 1)
    assert len(report["changed"]) == 1
    assert contents(store) == before


def test_rows_that_cannot_be_used_keep_the_old_events_and_exit_3(run, store, tmp_path):
    one, two = (item.name for item in open_store(store).recordings[:2])
    old = open_store(store).annotations(one).events
    table = tmp_path / "all.csv"
    rows = f'"{one}",1.0,2.0,laugh\n"{one}",3.0,?,laugh\n"{two}",1.0,2.0,laugh\n'
    table.write_text("recording,start,end,label\n" + rows)
    code, out, _ = run("annotate", store, "--from", table, "--event", "Laughter", "--json")
    report = json.loads(out)
    assert code == 3
    assert [item["recording"] for item in report["changed"]] == [two]
    (refused,) = report["unusable"]
    assert "line 3" in refused
    assert "all.csv" in refused
    assert open_store(store).annotations(one).events == old
    # An empty file says nothing of a class that is not named.
    (tmp_path / f"{one}.txt").write_text("")
    code, out, _ = run("annotate", store, "--from", tmp_path / f"{one}.txt", "--json")
    assert code == 0
    assert "no labelled span: nothing changes" in json.loads(out)["notes"][0]


def test_annotating_from_several_kinds_of_files_at_once(run, store, tmp_path):
    one = open_store(store).recordings[0].name
    two = open_store(store).recordings[1].id
    (tmp_path / f"{one}.txt").write_text("1.0\t2.0\tlaughter\n")
    rttm = tmp_path / "all.rttm"
    rttm.write_text(f"NON-LEX {two} 1 3.0 1.5 <NA> laugh <NA> <NA> <NA>\n")
    files = [tmp_path / f"{one}.txt", rttm]
    code, out, _ = run(
        "annotate", store, "--from", *files, "--merge", "--event", "Laughter", "--json"
    )
    report = json.loads(out)
    assert code == 0, report
    assert [item["num_added"] for item in report["changed"]] == [1, 1]
    assert [item["num_removed"] for item in report["changed"]] == [0, 0]


def test_annotating_from_a_data_set(run, store, corpus, tmp_path):
    code, out, _ = run("annotate", store, "--from", corpus)
    assert code == 0
    assert "nothing changes" in out
    changed = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    name = open_store(store).recordings[0].name
    events_folder = changed / "metadata/episode_event_speaker_mapping/train"
    files = [events_folder / f"{name}.json"]
    content = json.loads(files[0].read_text())
    events = (
        content
        if isinstance(content, list)
        else next(value for value in content.values() if isinstance(value, list))
    )
    del events[0]
    files[0].write_text(json.dumps(content))
    # A file that is broken, and an episode that the store does not have.
    broken = open_store(store).recordings[1].name
    next(changed.glob(f"metadata/episode_event_speaker_mapping/train/{broken}.json")).write_text(
        "{"
    )
    old = open_store(store).annotations(name)
    code, out, _ = run("annotate", store, "--from", changed, "--json")
    report = json.loads(out)
    assert code == 3
    assert [item["recording"] for item in report["changed"]] == [name]
    assert report["changed"][0]["num_removed"] == 1
    assert broken in report["unusable"][0]
    new = open_store(store).annotations(name)
    assert new.events == old.events[1:]
    assert (new.duration_us, new.speakers, new.words) == (old.duration_us, old.speakers, old.words)
    # Merging brings it back, behind the others.
    code, _, _ = run("annotate", store, "--from", corpus, "--merge")
    assert code == 0
    assert open_store(store).annotations(name).events == (*old.events[1:], old.events[0])


def test_what_a_source_leaves_out_is_told(run, store, tmp_path):
    name = open_store(store).recordings[0].name
    rows = [(name, 1.0, 2.5, "Laughter"), (name, 3.0, 4.0, "cough")]
    table = write_csv(tmp_path / "laughs.csv", rows)
    words = ["annotate", store, "--from", table, "--event", "Laughter", "--dry-run"]
    assert "left out, not Laughter: 1 cough" in run(*words)[1]
    assert "left out, not Laughter: 1 cough" in json.loads(run(*words, "--json")[1])["notes"]
    table = write_csv(tmp_path / "laughs.csv", [(name, 1.0, 2.5, "x")])
    assert "no span is labelled Laughter: every span is taken as one" in run(*words)[1]


def test_a_transcript_is_not_taken_for_laughs(run, store, tmp_path):
    name = open_store(store).recordings[0].name
    track = tmp_path / f"{name}.txt"
    track.write_text("1.0\t2.0\thello\n2.0\t3.0\tso what do you do\n")
    before = contents(store)
    code, out, err = run("annotate", store, "--from", track, "--event", "Laughter")
    assert (code, out) == (2, "")
    assert "look like a transcript" in err
    assert contents(store) == before


def events_file(data: Path, name: str) -> Path:
    (found,) = data.glob(f"metadata/episode_event_speaker_mapping/*/{glob.escape(name)}.json")
    return found


def read_events(file: Path) -> tuple[dict, list[dict]]:
    """The file's content and, in it, the list of events."""
    content = json.loads(file.read_text())
    return content, next(value for value in content.values() if isinstance(value, list))


def without_first_laugh(data: Path, name: str) -> None:
    content, events = read_events(file := events_file(data, name))
    events.remove(next(x for x in events if x["label_consolidated_vocab"] == "Laughter"))
    file.write_text(json.dumps(content))


def test_one_class_of_a_data_set_is_found_in_any_case_or_refused(run, store, corpus, tmp_path):
    changed = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    without_first_laugh(changed, open_store(store).recordings[0].name)
    before = contents(store)
    code, out, err = run("annotate", store, "--from", changed, "--event", "Laghter")
    assert (code, out) == (2, "")
    assert "has an event 'Laghter'; there are " in err
    assert "Laughter" in err
    assert contents(store) == before
    code, out, _ = run("annotate", store, "--from", changed, "--event", "laughter", "--json")
    report = json.loads(out)
    assert code == 0
    assert [item["num_removed"] for item in report["changed"]] == [1]


def test_a_class_that_a_data_set_no_longer_has_is_taken_away(run, store, corpus, tmp_path):
    changed = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    for file in changed.glob("metadata/episode_event_speaker_mapping/*/*.json"):
        content, events = read_events(file)
        events[:] = [x for x in events if x["label_consolidated_vocab"] != "Laughter"]
        file.write_text(json.dumps(content))
    assert run("annotate", store, "--from", changed, "--event", "Laughter")[0] == 0
    opened = open_store(store)
    events = [event for item in opened.recordings for event in opened.annotations(item.id).events]
    assert not any(event.label == "Laughter" for event in events)


def test_doubts_about_a_data_set_are_told_as_of_files(run, store, corpus, tmp_path):
    changed = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    name = open_store(store).recordings[0].name
    content, events = read_events(file := events_file(changed, name))
    late = {
        "event_start_inepisode": 9000.0,
        "event_end_inepisode": 9001.0,
        "speaker_id": "Bob",
    }
    events.append(events[0] | late)
    file.write_text(json.dumps(content))
    words = ["annotate", store, "--from", changed, "--dry-run"]
    code, out, _ = run(*words)
    assert code == 0
    assert f"{name}: 1 of {len(events)} events start after the recording's end" in out
    assert f"{name}: speakers new to the recording: Bob" in out
    # The data set brings its intervals; of one class, or merged, they are those of before.
    assert "intervals" not in out
    assert "intervals still belong to the old events" in run(*words, "--merge")[1]


def test_corrected_annotations_without_audio_are_a_data_set(run, store, corpus, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(corpus / "metadata", part / "metadata")
    opened = open_store(store)
    name = opened.recordings[0].name
    without_first_laugh(part, name)
    code, out, _ = run("annotate", store, "--from", part, "--json")
    assert code == 0
    assert [item["recording"] for item in json.loads(out)["changed"]] == [name]
    old, new = opened.annotations(name), open_store(store).annotations(name)
    assert len(new.events) == len(old.events) - 1
    assert set(new.events) <= set(old.events)
    code, _, err = run("annotate", store, "--from", part / "metadata")
    assert code == 2
    assert f"give {part}" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["STORE", "--from", "nothing.csv"], 1, "nothing.csv"),
        (["STORE", "--from", "CSV", "--merge", "--replace"], 2, "exclude each other"),
        (["STORE"], 2, "--from"),
        (["nowhere", "--from", "CSV"], 1, "nowhere"),
        (["STORE/shards", "--from", "CSV"], 1, "store.json"),
        (["STORE", "--from", "CSV", "CORPUS"], 2, "one data set"),
        (["s3://bucket/S", "--from", "CSV"], 2, "s3://bucket/S is a URL, and a path of this"),
    ],
)
def test_a_wrong_annotate_is_one_line(run, store, corpus, tmp_path, words, code, said):
    table = write_csv(tmp_path / "laughs.csv", [("x", 1.0, 2.5, "Laughter")])
    known = {"STORE": store, "CSV": table, "CORPUS": corpus, "STORE/shards": store / "shards"}
    before = contents(store)
    found, out, err = run("annotate", *(known.get(word, word) for word in words))
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1
    assert contents(store) == before


# add


def test_an_addition_appends_and_leaves_all_else(part, whole):
    old, new = open_store(part), open_store(whole)
    assert new.manifest.generation == new.manifest.num_plans == 2
    assert len(new.recordings) == sum(EPISODES.values())
    assert new.recordings[: len(old.recordings)] == old.recordings
    before, after = contents(part), contents(whole)
    assert {path for path in before if before[path] != after[path]} == {
        layout.STORE_JSON,
        layout.CURRENT_INDEX,
    }


def test_features_of_an_addition_are_those_of_a_build(whole, built):
    one, other = open_store(whole), open_store(built)
    for recording in other.recordings:
        for stream in recording.streams:
            mine = one.frames(recording.id, stream.assignment)
            theirs = other.frames(recording.id, stream.assignment)
            np.testing.assert_array_equal(mine.view(np.uint16), theirs.view(np.uint16))
        assert one.annotations(recording.id) == other.annotations(recording.id)


def test_adding_again_adds_nothing(run, whole, corpus, nano_checkpoint):
    before = contents(whole)
    code, out, _ = run("add", whole, corpus, "--model", nano_checkpoint)
    assert code == 0
    assert "nothing was added" in out
    assert "4 recordings passed over: in the store already" in out
    assert contents(whole) == before


def test_a_dry_run_of_add_loads_no_model(run, small, corpus):
    before = contents(small)
    code, out, _ = run("add", small, corpus, "--model", "none", "--dry-run", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["recordings"] == 3
    assert len(report["already"]) == 1
    assert report["bytes"] > 0
    assert contents(small) == before


def test_another_model_or_setting_is_refused_by_name(run, small, corpus, nano_checkpoint, tmp_path):
    before = contents(small)
    code, out, err = run("add", small, corpus)
    assert (code, out) == (2, "")
    assert "--model DIR" in err
    code, out, err = run("add", small, corpus, "--model", nano_checkpoint, "--rows", 4)
    assert (code, out) == (2, "")
    assert "slots" in err
    assert run("tiny-checkpoint", tmp_path / "other", "--size", "nano", "--seed", 5)[0] == 0
    code, _, err = run("add", small, corpus, "--model", tmp_path / "other", "-q")
    assert code == 2
    assert "weights_sha256" in err
    assert err.count("\n") == 1
    assert contents(small) == before


@contextmanager
def adding(store: Path, corpus: Path, model: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A child that adds, stopped at the end."""
    words = ["add", str(store), str(corpus), "--model", str(model), *more]
    with subprocess.Popen(
        [sys.executable, "-m", "laughstore", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def wait_for(what: Path, child: subprocess.Popen[str], pattern: str) -> None:
    deadline = time.monotonic() + 120
    has_ended = False
    while not list(what.glob(pattern)):
        assert not has_ended, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
        has_ended = child.poll() is not None  # it may have made them just before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "how"),
    [("plans/000002.json", signal.SIGINT), ("shards/train-*.tar*", signal.SIGKILL)],
)
def test_a_stopped_addition_goes_on_with_the_same_command(
    run, small, whole, corpus, nano_checkpoint, moment, how
):
    with adding(small, corpus, nano_checkpoint) as child:
        wait_for(small, child, moment)
        child.send_signal(how)
        _, err = child.communicate()
    assert child.returncode in (130, -signal.SIGKILL)
    if how == signal.SIGINT:
        assert "Go on with:\n" in err
        assert f"add {small} {corpus}" in err
    assert open_store(small).manifest.generation == 1
    # Another addition is refused meanwhile, with the two ways out.
    code, _, err = run("add", small, corpus, "--model", nano_checkpoint, "--split", "test", "-q")
    assert code == 2
    assert "finish it" in err
    assert "gc" in err
    assert "--unfinished" in err
    assert run("gc", small, "-q")[0] == 0
    code, out, _ = run("add", small, corpus, "--model", nano_checkpoint, "--json", "-q")
    assert code == 0
    assert json.loads(out)["num_added"] == 3
    assert contents(small) == contents(whole)


@pytest.mark.slow
def test_an_unfinished_addition_can_be_dropped(run, small, part, corpus, nano_checkpoint):
    with adding(small, corpus, nano_checkpoint, "--split", "test") as child:
        wait_for(small, child, "shards/test-*.tar*")
    assert run("gc", small, "--unfinished", "--json")[0] == 0
    assert contents(small) == contents(part)


def test_a_recording_that_fails_is_left_out_and_comes_back(
    run, small, corpus, nano_checkpoint, tmp_path
):
    data = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    track = sorted(data.glob("audio/episode_wav_dial/train/*/*.wav"))[0]
    whole_track = track.read_bytes()
    track.write_bytes(whole_track[: len(whole_track) // 2])
    model = ["--model", nano_checkpoint]
    # The only one: nothing is published, and nothing is in the way of another addition.
    only = ["--recordings", glob.escape(track.parent.name)]
    before = contents(small)
    code, _, err = run("add", small, data, *model, *only, "-q")
    assert (code, "nothing was added" in err) in ((1, True), (3, False))
    assert contents(small) == before
    code, out, _ = run("add", small, data, *model, "--split", "train", "-q", "--json")
    report = json.loads(out)
    assert code == 3
    assert report["num_added"] == 1
    assert [item["name"] for item in report["left_out"]] == [track.parent.name]
    assert [item["name"] for item in open_store(small).manifest.quarantined] == [track.parent.name]
    track.write_bytes(whole_track)
    code, out, _ = run("add", small, data, *model, "--split", "train", "-q", "--json")
    assert code == 0
    assert json.loads(out)["num_added"] == 1
    opened = open_store(small)
    assert opened.manifest.quarantined == ()
    numbers = [shard.number for shard in opened.index.split_shards("train")]
    assert len(set(numbers)) == len(numbers)


@contextmanager
def held_by_another(store: Path) -> Iterator[int]:
    """Pid of a process that holds a store with other writers; it is killed at the end."""
    reader, writer = os.pipe()
    holder = os.fork()
    if not holder:
        with StoreLocks(store) as locks, locks.shared():
            os.write(writer, b"x")
            time.sleep(120)
        os._exit(0)
    try:
        os.read(reader, 1)
        yield holder
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        os.close(reader)
        os.close(writer)


class Told(io.StringIO):
    """A standard error that ends a process when it is told of waiting."""

    holder = 0

    def write(self, text: str) -> int:
        if self.holder and "waiting for it" in text:
            os.kill(self.holder, signal.SIGKILL)
        return super().write(text)


def test_an_addition_tells_that_it_waits(small, corpus, nano_checkpoint, monkeypatch):
    from laughstore.cli.main import main

    monkeypatch.setattr(sys, "stderr", told := Told())
    words = ["add", str(small), str(corpus), "--model", str(nano_checkpoint), "--split", "test"]
    begun = time.monotonic()
    with held_by_another(small) as told.holder:
        assert main(words) == 0
    assert time.monotonic() - begun < 60, "it did not go on when the other was gone"
    line = next(line for line in told.getvalue().splitlines() if "waiting for it" in line)
    assert f"{small}: another process uses this store; waiting for it" in line


@pytest.mark.slow
def test_a_child_that_adds_tells_that_it_waits_while_it_waits(small, corpus, nano_checkpoint):
    with held_by_another(small), adding(small, corpus, nano_checkpoint) as child:
        assert child.stderr is not None
        line = next((line for line in child.stderr if "waiting for it" in line), "")
        assert f"{small}: another process uses this store; waiting for it" in line


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "your quota of the disk is used up"),
        (errno.EFBIG, "a file would be larger than it may be here"),
    ],
)
def test_what_cannot_be_written_is_told_with_a_way_on(
    run, store, tmp_path, monkeypatch, number, said
):
    def fail(*arguments: object, **settings: object) -> object:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("laughstore.cli.export.export", fail)
    code, _, err = run("export", store, "--out", tmp_path / "out")
    assert code == 1
    assert said in err
    assert "run the same command again" in err
    assert err.count("\n") == 1


# gc


def test_gc_tells_and_then_removes(run, store, tmp_path):
    name = open_store(store).recordings[0].name
    table = write_csv(tmp_path / "laughs.csv", [(name, 1.0, 2.5, "Laughter")])
    assert run("annotate", store, "--from", table)[0] == 0
    (store / "mine.txt").write_text("mine")
    before = contents(store)
    code, out, _ = run("gc", store, "--dry-run")
    assert code == 0
    assert "would be removed" in out
    assert "not ours, left alone" in out
    assert contents(store) == before
    code, told, _ = run("gc", store, "--dry-run", "--json")
    code, done, _ = run("gc", store, "--json")
    assert code == 0
    report = json.loads(done)
    assert report["removed"] == json.loads(told)["removed"]
    assert (report["kept"], report["dropped"], report["left_alone"]) == ([2], [1], ["mine.txt"])
    assert set(before) - set(contents(store)) == set(report["removed"])
    assert kept_generations(store) == (2,)
    code, _, err = run("gc", store, "--keep", "0")
    assert code == 2
    assert "keep is 0" in err


def test_gc_does_not_run_beside_a_writer(run, store):
    child = os.fork()
    if not child:
        with StoreLocks(store) as locks, locks.shared():
            (store.parent / "ready").touch()
            time.sleep(60)
        os._exit(0)
    try:
        while not (store.parent / "ready").exists():
            time.sleep(0.01)
        code, out, err = run("gc", store)
        assert (code, out) == (1, "")
        assert "another process is writing" in err
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# export


def test_an_export_reads_and_trains_like_any_store(run, store, tmp_path):
    out_folder = tmp_path / "out"
    code, out, err = run("export", store, "--out", out_folder, "--split", "train")
    assert code == 0
    assert "2 recordings" in out
    assert "linked files were not read" in out
    assert f"next: laughstore verify {out_folder}" in out
    assert err == ""
    assert run("inspect", out_folder)[0] == 0
    new, old = open_store(out_folder), open_store(store)
    assert new.splits == ("train",)
    name = new.recordings[0].name
    np.testing.assert_array_equal(
        new.frames(name).view(np.uint16), old.frames(name).view(np.uint16)
    )
    code, out, _ = run("export", store, "--out", out_folder, "--split", "train", "--json")
    assert json.loads(out)["num_linked"] == 0
    code, _, err = run("export", store, "--out", out_folder, "--split", "test")
    assert code == 2
    assert "give another --out" in err


def test_an_export_without_annotations_says_what_stays(run, store, tmp_path):
    code, out, _ = run("export", store, "--out", tmp_path / "o", "--no-annotations", "--copy")
    assert code == 0
    assert "main speakers stay" in out
    assert "codes" in out
    for item in (opened := open_store(tmp_path / "o")).recordings:
        assert opened.annotations(item.id).events == ()
        assert opened.annotations(item.id).words is None


@pytest.mark.slow
def test_an_export_that_was_killed_goes_on(run, store, tmp_path):
    expected, out = tmp_path / "expected", tmp_path / "out"
    assert run("export", store, "--out", expected, "--no-annotations")[0] == 0
    words = ["export", str(store), "--out", str(out), "--no-annotations"]
    with subprocess.Popen([sys.executable, "-m", "laughstore", *words]) as child:
        wait_for(out, child, "units/*.json")  # pyright: ignore[reportArgumentType]
        child.kill()
    assert run(*words)[0] == 0
    # What was being written lies there until garbage is collected.
    found = {path: sha for path, sha in contents(out).items() if TEMPORARY_MARK not in path}
    assert found == contents(expected)
    assert run("gc", out)[0] == 0
    assert contents(out) == contents(expected)


@pytest.mark.parametrize("command", ["annotate", "gc", "export", "add"])
def test_ctrl_c_tells_the_command_that_goes_on(
    run, store, corpus, nano_checkpoint, tmp_path, monkeypatch, command
):
    words = {
        "annotate": ["annotate", store, "--from", corpus],
        "gc": ["gc", store, "--keep", 2],
        "export": ["export", store, "--out", tmp_path / "my out"],
        "add": ["add", store, corpus, "--model", nano_checkpoint],
    }[command]

    def interrupt(self: StoreLocks, *, wait: bool = True) -> object:
        raise KeyboardInterrupt

    before = contents(store)
    monkeypatch.setattr(StoreLocks, "exclusive", interrupt)
    code, out, err = run(*words)
    assert (code, out) == (130, "")
    assert f"Go on with:\n  laughstore {shlex.join(map(str, words))}\n" in err
    assert contents(store) == before
