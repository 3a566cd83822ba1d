"""The annotation loop: spots, corrected as a person would, annotated, trained on again."""

import csv
import hashlib
import json
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from laughstore import open_store
from laughstore.annotations import Event
from laughstore.cli.main import main
from laughstore.new_folder import _machine
from laughstore.timebase import FRAME_US, SAMPLES_PER_FRAME
from tests.store.loopback import FileServer
from tests.stores import SPEAKERS, Episode, laugh, write_store
from tests.train.conftest import DIM, Planted

FRAMES = 400
A, B = SPEAKERS
NAMES = {
    'Dr. Who, "live"_1': "train",
    "Dr. Who, 2.5 = half_2": "train",
    "Show_3": "train",
    "Another show_1": "validation",
    "Third show_1": "test",
}
TRAINING = ["--epochs", 10, "--lr", 0.02, "--global-batch", 512, "--lanes", 16, "--device", "cpu"]


def laughs() -> tuple[list[Event], list[Event]]:
    """Laughs of both speakers that are annotated, and others that nobody annotated."""
    annotated: list[Event] = []
    missing: list[Event] = []
    for k in range(5):
        for speaker, start_s in ((A, 2.0), (B, 5.0)):
            begin_s = start_s + 6 * k
            event = laugh(begin_s, begin_s + 0.64 + 0.08 * k, speaker)
            (missing if k % 2 else annotated).append(event)
    return annotated, missing


ANNOTATED, MISSING = laughs()


def write_data(path: Path, names: Sequence[str]) -> Path:
    """A data set of noise: each audio sample of it is known by its number."""
    (path / "sound").mkdir(parents=True)
    lines = []
    for number, name in enumerate(names):
        speakers = []
        for side, speaker in enumerate(SPEAKERS):
            file = path / "sound" / f"{number}-{side}.wav"
            soundfile.write(file, sound(number, side), 24_000, subtype="PCM_16")
            speakers.append({"name": speaker, "audio": f"sound/{file.name}"})
        lines.append({"name": name, "split": NAMES[name], "speakers": speakers, "events": []})
    (path / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def sound(number: int, side: int):
    rng = np.random.default_rng([number, side])
    return rng.integers(-32_768, 32_768, FRAMES * SAMPLES_PER_FRAME, dtype=np.int16)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a store whose annotations lack two laughs in five, and a run trained on it."""
    folder = tmp_path_factory.mktemp("loop")
    write_data(folder / "data", list(NAMES))
    full = tuple(
        Episode(name, split, FRAMES, [*ANNOTATED, *MISSING]) for name, split in NAMES.items()
    )
    kept = [replace(episode, events=ANNOTATED) for episode in full]
    write_store(folder / "store", kept, Planted(full, strength=6.0), dim=DIM, block_frames=32)
    arguments = ["train", "--shards", folder / "store/shards", "--out", folder / "run", "-q"]
    assert main([str(item) for item in [*arguments, *TRAINING]]) == 0
    return folder


@pytest.fixture
def own(place: Path, tmp_path: Path) -> Path:
    """A copy of all that, whose store may change; its run reads this copy."""
    for name in ("data", "store", "run"):
        shutil.copytree(place / name, tmp_path / name)
    return tmp_path


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "spots.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def found_laugh(row: dict[str, str], events: Sequence[Event] = MISSING) -> Event:
    """The laugh that a spot is of; a test fails if it is of none."""
    start_us, end_us = (round(float(row[key]) * 1e6) for key in ("start_s", "end_s"))
    (event,) = [
        item
        for item in events
        if item.speaker == row["speaker"] and item.start_us < end_us and start_us < item.end_us
    ]
    return event


def fingerprint(store: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, time and content of every file of features."""
    files = [*(store / "features.zarr").rglob("*"), *(store / "shards").glob("*.tar")]
    return {
        str(path): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in files
        if path.is_file()
    }


def laughs_in(store: Path) -> dict[str, list[Event]]:
    opened = open_store(store)
    return {
        item.name: [
            event for event in opened.annotations(item.id).events if event.label == "Laughter"
        ]
        for item in opened.recordings
    }


def positives(run, store: Path) -> int:
    report = json.loads(run("labels", store, "--json")[1])
    return sum(line["positives"] for line in report["splits"])


def search(run, place: Path, out: Path, *more: object, store: Path | None = None):
    arguments = ["spots", place / "run", "--audio", place / "data", "--out", out]
    shards = [] if store is None else ["--shards", store / "shards"]
    return run(*arguments, *shards, "--device", "cpu", *more)


def test_the_whole_loop_finds_what_was_left_out_and_touches_no_feature(run, own):
    store, out = own / "store", own / "spots"
    before, old = fingerprint(store), laughs_in(store)
    code, printed, _ = search(run, own, out, "--count", 16, store=store)
    assert code == 0
    rows = rows_of(out)
    # The sixteen laughs that train and validation lack, and nothing else.
    found = {(row["recording"], found_laugh(row)) for row in rows}
    assert len(rows) == len(found) == 4 * len(MISSING)
    assert {row["split"] for row in rows} == {"train", "validation"}
    assert f"annotate {store} --from {out}" in printed
    assert "take the ? from a label" in printed

    labels = out / "spots.TextGrid"
    pieces = labels.read_text().split('"Laughter?"')
    assert len(pieces) == 17
    verdicts = ['"Laughter"'] * 10 + ['""'] * 3 + ['"Laughter?"'] * 3
    labels.write_text("".join(a + b for a, b in zip(pieces, [*verdicts, ""], strict=True)))
    num_positive = positives(run, store)

    code, printed, _ = run("annotate", store, "--from", out)
    assert code == 0
    assert "of 16 spots 10 accepted, 3 rejected (no label left), 3 undecided" in printed
    new = laughs_in(store)
    added = {name: new[name][len(old[name]) :] for name in new}
    assert all(new[name][: len(old[name])] == old[name] for name in new)
    accepted = [
        (
            row["recording"],
            laugh(float(row["start_s"]), float(row["end_s"]), row["speaker"]),
        )
        for row in rows[:10]
    ]
    assert sorted(accepted, key=repr) == sorted(
        ((name, event) for name, events in added.items() for event in events), key=repr
    )
    frames = sum((event.end_us - event.start_us) // FRAME_US for _, event in accepted)
    assert positives(run, store) == num_positive + frames
    assert open_store(store).manifest.generation == 2
    assert fingerprint(store) == before
    assert "nothing changes" in run("annotate", store, "--from", out)[1]

    again = own / "run2"
    code, _, _ = run("train", "--shards", store / "shards", "--out", again, "-q", *TRAINING)
    assert code == 0
    about = json.loads((again / "config.json").read_text())["about"]
    assert about["generation"] == 2
    arguments = ["spots", again, "--audio", own / "data", "--out", own / "next", "--count", 3]
    code, printed, _ = run(*arguments, "--reviewed", out)
    assert code == 0
    assert "beside 3 decided before" in printed
    undecided = {(row["recording"], found_laugh(row)) for row in rows[13:]}
    assert {(row["recording"], found_laugh(row)) for row in rows_of(own / "next")} == undecided
    # Without it the rejected ones come, too.
    code, _, _ = run(*arguments[:-4], "--out", own / "all", "--count", 6)
    assert {(row["recording"], found_laugh(row)) for row in rows_of(own / "all")} == {
        (row["recording"], found_laugh(row)) for row in rows[10:]
    }


def test_clips_are_the_sound_of_the_speaker_sample_for_sample(run, place, tmp_path):
    out = tmp_path / "spots"
    assert search(run, place, out, "--count", 12, "--context", "0.5s")[0] == 0
    reel, rate = soundfile.read(out / "spots.wav", dtype="int16")
    assert rate == 24_000
    end = 0
    for row in rows_of(out):
        number = list(NAMES).index(row["recording"])
        track = sound(number, SPEAKERS.index(row["speaker"]))
        clip, rate = soundfile.read(out / row["clip"], dtype="int16")
        assert (rate, clip.ndim) == (24_000, 1)
        first = round(float(row["clip_start_s"]) * 24_000)
        assert np.array_equal(clip, track[first : first + len(clip)])
        begin = round(float(row["spots_wav_s"]) * 24_000)
        assert np.array_equal(reel[begin : begin + len(clip)], clip)
        assert not reel[end:begin].any()
        assert begin - end == 0.8 * 24_000
        end = begin + len(clip)
        # 0.5 s are six frames, before and behind.
        spot_first = round(float(row["start_s"]) * 24_000)
        spot_end = round(float(row["end_s"]) * 24_000)
        assert (spot_first - first, first + len(clip) - spot_end) == (11_520, 11_520)
    assert not reel[end:].any()
    assert len(list((out / "clips").iterdir())) == 12
    assert not list(tmp_path.glob("*.partial-*"))


def test_the_same_command_gives_the_same_files(run, place, tmp_path):
    for name in ("one", "two"):
        assert search(run, place, tmp_path / name, "--count", 5, "--format", "audacity")[0] == 0
    for path in sorted((tmp_path / "one").rglob("*")):
        if path.is_file():
            same = tmp_path / "two" / path.relative_to(tmp_path / "one")
            assert path.read_bytes() == same.read_bytes(), path.name


def test_a_search_of_test_is_a_look_at_it(run, own):
    assert search(run, own, own / "usual", "--count", 4, store=own / "store")[0] == 0
    assert not (own / "run/test_looks.jsonl").exists()
    code, _, _ = search(run, own, own / "all", "--split", "all", store=own / "store")
    assert code == 0
    assert "test" in {row["split"] for row in rows_of(own / "all")}
    (line,) = (own / "run/test_looks.jsonl").read_text().splitlines()
    look = json.loads(line)
    assert (look["look"], look["split"], look["by"]) == (1, "test", "spots")


def test_audacity_labels_with_moved_edges_another_speaker_and_another_class(run, own):
    store, out = own / "store", own / "spots"
    assert search(run, own, out, "--count", 4, "--format", "audacity", store=store)[0] == 0
    rows = rows_of(out)
    lines = (out / "spots.txt").read_text().splitlines()
    assert [line.split("\t")[2] for line in lines] == ["Laughter?"] * 4
    start, end, _ = lines[0].split("\t")
    other = B if rows[1]["speaker"] == A else A
    lines[0] = f"{float(start) - 0.123456:.6f}\t{float(end) + 0.25:.6f}\tlaughter"
    lines[1] = lines[1].replace("?", f" {other.lower()}")
    lines[2] = lines[2].replace("Laughter?", "Giggle")
    (out / "spots.txt").write_text("\n".join(lines))
    code, printed, _ = run("annotate", store, "--from", out)
    # One word is no class: its recording is left over, and said so with the time.
    refused = rows[2]["recording"]
    assert code == 3
    assert "'Giggle' is none of the classes (Laughter)" in printed
    new = laughs_in(store)
    assert len(new[refused]) == len(ANNOTATED)
    lines[2] = lines[2].replace("Giggle", "Laughter?")
    (out / "spots.txt").write_text("\n".join(lines))
    code, printed, _ = run("annotate", store, "--from", out / "spots.txt", "--json")
    assert code == 0
    assert "2 accepted, 0 rejected (no label left), 2 undecided" in json.loads(printed)["notes"][0]
    new = laughs_in(store)
    first, second = rows[:2]
    begin_us = round(float(first["start_s"]) * 1e6) - 123_456
    end_us = round(float(first["end_s"]) * 1e6) + 250_000
    assert laugh(begin_us / 1e6, end_us / 1e6, first["speaker"]) in new[first["recording"]]
    moved = laugh(float(second["start_s"]), float(second["end_s"]), other)
    assert moved in new[second["recording"]]
    assert sum(map(len, new.values())) == len(NAMES) * len(ANNOTATED) + 2


def test_labels_and_evaluate_show_corrections_without_a_new_generation(run, own):
    store, out = own / "store", own / "spots"
    assert search(run, own, out, "--count", 16, store=store)[0] == 0
    labels = out / "spots.TextGrid"
    labels.write_text(labels.read_text().replace("Laughter?", "Laughter"))
    num_positive = positives(run, store)
    report = json.loads(run("labels", store, "--annotations", out, "--json")[1])
    assert sum(line["positives"] for line in report["splits"]) > num_positive
    assert open_store(store).manifest.generation == 1
    # Nothing is left to be found once they count.
    code, printed, _ = search(run, own, own / "none", "--annotations", out, "--threshold", 0.9)
    assert code == 0
    assert "no spot found, nothing was written" in printed
    assert not (own / "none").exists()


def test_recordings_without_sound_are_named_and_their_spots_still_listed(run, place, tmp_path):
    data = write_data(tmp_path / "data", list(NAMES)[1:])
    # One is too short: another recording of the same name.
    short = tmp_path / "data/sound/1-0.wav"
    soundfile.write(short, np.zeros(24_000, np.int16), 24_000)
    soundfile.write(short.with_name("1-1.wav"), np.zeros(24_000, np.int16), 24_000)
    out = tmp_path / "spots"
    arguments = ["spots", place / "run", "--audio", data, "--out", out, "--count", 16]
    code, printed, _ = run(*arguments, "--format", "audacity")
    assert code == 3
    first, _, third, _ = [name for name, split in NAMES.items() if split != "test"]
    assert f"{first}: not in {data}" in printed
    assert f"{third}: none of its files has the 400 frames that the store has of it" in printed
    rows = rows_of(out)
    assert len(rows) == 16
    silent = [row for row in rows if row["recording"] in (first, third)]
    assert len(silent) == 8
    assert {row["clip"] for row in silent} == {""}
    assert len((out / "spots.txt").read_text().splitlines()) == 8
    code, printed, _ = run(*arguments[:-3], tmp_path / "json", "--count", 16, "--json")
    report = json.loads(printed)
    assert code == 3
    assert [item["recording"] for item in report["without_sound"]] == sorted(
        [first, third], key=[row["recording"] for row in rows].index
    )
    assert len(report["spots"]) == 16


def test_without_any_sound_the_table_alone_is_written(run, place, tmp_path):
    data = write_data(tmp_path / "data", ["Third show_1"])
    out = tmp_path / "spots"
    code, printed, _ = run("spots", place / "run", "--audio", data, "--out", out)
    assert code == 3
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [
        "laughstore-spots.json",
        "spots.csv",
    ]
    assert "take the ?" not in printed
    assert len(rows_of(out)) >= 16


def test_a_mix_is_heard_where_speakers_have_no_track(run, place, tmp_path):
    data = tmp_path / "data"
    (data / "sound").mkdir(parents=True)
    both = (sound(0, 0).astype(np.int32) // 4 + sound(0, 1) // 4).astype(np.int16)
    soundfile.write(data / "sound/mix.flac", both, 24_000, subtype="PCM_16")
    name = next(iter(NAMES))
    line = {"name": name, "split": "train", "audio": "sound/mix.flac", "events": []}
    (data / "manifest.jsonl").write_text(json.dumps(line))
    out = tmp_path / "spots"
    code, _, _ = run("spots", place / "run", "--audio", data, "--out", out, "--split", "train")
    assert code == 3
    heard = [row for row in rows_of(out) if row["clip"]]
    assert {row["recording"] for row in heard} == {name}
    clip = soundfile.read(out / heard[0]["clip"], dtype="int16")[0]
    first = round(float(heard[0]["clip_start_s"]) * 24_000)
    assert np.array_equal(clip, both[first : first + len(clip)])


@pytest.mark.parametrize(
    ("more", "exit_code", "said"),
    [
        (["--count", "0"], 2, "count is 0; it must be 1 to 10,000"),
        (["--context", "2"], 2, "2s (seconds) or 2f"),
        (["--context", "61s"], 2, "context 61s: it must lie in 0s to 60s"),
        (["--format", "elan"], 2, "textgrid"),
        (["--split", "train,dev"], 2, "no split 'dev'"),
        (["--checkpoint", "none"], 1, "none"),
        (["--reviewed", "nowhere"], 1, "nowhere holds no laughstore-spots.json"),
        (["--annotations", "nowhere"], 1, "nowhere"),
    ],
)
def test_wrong_flags_are_one_line_and_leave_nothing(run, place, tmp_path, more, exit_code, said):
    code, printed, err = search(run, place, tmp_path / "out", *more)
    assert (code, printed) == (exit_code, "")
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_or_in_the_way_is_named(run, place, tmp_path):
    data, out = place / "data", tmp_path / "out"
    code, _, err = run("spots", tmp_path / "no run", "--audio", data, "--out", out)
    assert (code, err.count("\n")) == (1, 1)
    assert "it is no training run" in err
    code, _, err = run("spots", place / "run", "--audio", tmp_path / "no data", "--out", out)
    assert code == 1
    assert "no data: no such folder or file" in err
    code, _, err = run("spots", place / "run", "--audio", tmp_path, "--out", out)
    assert code == 2
    assert "expected" in err
    out.mkdir()
    code, _, err = run("spots", place / "run", "--audio", data, "--out", out)
    assert code == 2
    assert f"{out} exists; choose another --out" in err


def test_a_run_whose_store_is_gone_says_so(run, own):
    moved = own / "run2"
    arguments = ["train", "--shards", own / "store/shards", "--out", moved, "-q", *TRAINING]
    assert run(*arguments, "--epochs", 1)[0] == 0
    (own / "store").rename(own / "elsewhere")
    arguments = ["spots", moved, "--audio", own / "data", "--out", own / "out"]
    code, _, err = run(*arguments)
    assert (code, err.count("\n")) == (1, 1)
    assert f"{own / 'store/shards'} is gone" in err
    assert "--shards STORE" in err
    code, _, err = run(*arguments, "--shards", own / "nowhere")
    assert (code, err.count("\n")) == (1, 1)
    assert run(*arguments, "--shards", own / "elsewhere", "--threshold", 0.01)[0] == 0


def test_a_remote_store_is_searched_and_a_copy_is_to_be_annotated(run, place, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    with FileServer(place) as server:
        url = f"http://127.0.0.1:{server.port}/store"
        code, printed, _ = search(run, place, there, "--count", 5, "--shards", url)
    assert code == 0
    assert f"annotate COPY --from {there}, of a copy of {url}" in printed
    assert search(run, place, here, "--count", 5)[0] == 0
    assert (here / "spots.csv").read_bytes() == (there / "spots.csv").read_bytes()


# Of a file that Ctrl-C caught between its opening and the block that closes it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_leaves_nothing_behind(run, place, tmp_path):
    """Pressed while clips are written; where that was done too fast, it is tried again."""
    code, err, out = 0, "", tmp_path
    for attempt in range(20):
        out, over = tmp_path / f"out{attempt}", threading.Event()

        def press(out: Path = out, over: threading.Event = over) -> None:
            while not over.is_set():
                if list(tmp_path.glob(f"{out.name}.partial-*/clips")):
                    os.kill(os.getpid(), signal.SIGINT)
                    return
                time.sleep(0.0005)

        thread = threading.Thread(target=press)
        thread.start()
        try:
            code, _, err = search(run, place, out, "--count", 16)
        finally:
            over.set()
            thread.join()
        if code != 0:
            break
        assert out.exists()
    assert code == 130
    assert "interrupted" in err
    assert not out.exists()
    assert not list(tmp_path.glob("*.partial-*"))


def test_clips_that_do_not_fit_on_the_disk_are_one_line(run, place, tmp_path):
    assert search(run, place, tmp_path / "whole", "--count", 5)[0] == 0
    reel = (tmp_path / "whole/spots.wav").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (reel - 1, before[1]))
    try:
        code, _, err = search(run, place, tmp_path / "out", "--count", 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    last = err.splitlines()[-1]
    assert last.startswith("laughstore: a file would be larger than it may be here ([Errno 27]")
    assert str(tmp_path / "out") in last
    assert [item.name for item in tmp_path.iterdir()] == ["whole"]


def test_what_a_killed_search_left_is_removed_and_told(run, place, tmp_path):
    left = tmp_path / f"out.partial-{_machine()}01234567"
    (left / "clips").mkdir(parents=True)
    code, _, err = search(run, place, tmp_path / "out", "--count", 5)
    assert code == 0
    assert f"{left} was left by a process that was killed: removed" in err
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_a_label_with_a_question_mark_is_no_event_in_any_file(run, own):
    store = own / "store"
    table = own / "laughs.csv"
    name = "Show_3"
    table.write_text(f"recording,start,end,label,speaker\n{name},1,2,Laughter?,{A}\n")
    code, printed, _ = run("annotate", store, "--from", table, "--merge")
    assert code == 0
    assert "nothing changes" in printed
    assert "1 labels left out: they end with ?, undecided" in printed
    # Not even where every span would be taken as one.
    code, printed, _ = run("annotate", store, "--from", table, "--event", "Laughter", "--merge")
    assert (code, "nothing changes" in printed) == (0, True)
    table.write_text(table.read_text() + f"{name},3,4,Laughter,{A}\n")
    assert run("annotate", store, "--from", table, "--merge")[0] == 0
    new = laughs_in(store)[name]
    assert len(new) == len(ANNOTATED) + 1
    assert new[-1] == laugh(3, 4, A)
