"""`laughstore labels`: counts against a slow count, the drawing against one made by hand."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from extract.synthetic.corpus import EVENTS
from laughstore import layout
from laughstore.annotations import Event
from laughstore.files import sha256_file
from laughstore.timebase import FRAME_US
from tests.stores import SPEAKERS, Episode, random_features, write_store

DIM = 64
ANN, BOB = SPEAKERS


def frames(first: int, stop: int, speaker: str | None = ANN) -> Event:
    """A laugh that touches exactly these frames."""
    return Event(first * FRAME_US, stop * FRAME_US, "Laughter", "Laughter", speaker)


EPISODES = (
    # 6 frames lie between the first two: one bout, with a gap. 775 is in the second minute.
    Episode(
        "an episode, part 1",
        "train",
        1600,
        [frames(20, 30), frames(36, 40), frames(775, 780, None), frames(70, 75, BOB)],
    ),
    Episode("another", "train", 200, [frames(0, 3), frames(190, 260)]),
    Episode("held out", "validation", 300, [frames(100, 110), frames(200, 203, BOB)]),
    Episode("alone", "test", 90, [], [ANN]),
)
DRAWN = ["      ##   o", "  0 --++" + "-" * 71, "      o", "  1 --." + "-" * 72, "  2 ----------"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "store"
    return write_store(path, EPISODES, random_features(DIM), dim=DIM, block_frames=32)


def slow_count(episode: Episode, main: str, first: int = 0) -> tuple[int, int, int]:
    """(rows, positives, ignored) of `detection`, frame by frame, as docs/labels.md says it."""
    end_us = episode.num_frames * FRAME_US
    ours = sorted(
        (item.start_us, min(item.end_us, end_us)) for item in episode.events if item.speaker == main
    )
    positives = ignored = 0
    for frame in range(first, episode.num_frames):
        start, stop = frame * FRAME_US, (frame + 1) * FRAME_US

        def touches(a: int, b: int, start: int = start, stop: int = stop) -> bool:
            return a < stop and start < b

        in_gap = any(
            before[1] <= start and stop <= after[0] and after[0] - before[1] <= 500_000
            for before, after in itertools.pairwise(ours)
        )
        unknown = any(
            touches(item.start_us, item.end_us) for item in episode.events if item.speaker is None
        )
        if unknown or in_gap:
            ignored += 1
        elif any(touches(*item) for item in ours):
            positives += 1
    return episode.num_frames - first, positives, ignored


def contents(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): sha256_file(path)
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.parent.name != layout.STATS
    }


def counted(item: dict) -> tuple[int, int, int]:
    return item["rows"], item["positives"], item["ignored"]


def added(*counts: tuple[int, int, int]) -> tuple[int, int, int]:
    a, b, c = (sum(column) for column in zip(*counts, strict=True))
    return a, b, c


def test_counts_by_split_recording_group_and_speaker_are_those_of_a_slow_count(store, run):
    streams = {
        (episode.name, main): slow_count(episode, main)
        for episode in EPISODES
        for main in episode.speakers
    }
    for by in ("recording", "speaker", "group"):
        code, out, _ = run("labels", store, "--by", by, "--json")
        assert code == 0
        report = json.loads(out)
        assert report["by"] == by
        for line in report["splits"]:
            names = [item.name for item in EPISODES if item.split == line["split"]]
            of_split = [count for (name, _), count in streams.items() if name in names]
            assert counted(line) == added(*of_split)
            assert line["recordings"] == len(names)
            assert line["streams"] == len(of_split)
            assert line["negatives"] == line["rows"] - line["positives"] - line["ignored"]
            assert line["base_rate"] == line["positives"] / (line["rows"] - line["ignored"])
            assert line["hours"] == pytest.approx(line["rows"] * 0.08 / 3600, abs=1e-6)
        found = {(item["split"], item["name"]): counted(item) for item in report["items"]}
        expected = {}
        for episode in EPISODES:
            mine = {main: streams[episode.name, main] for main in episode.speakers}
            if by == "speaker":
                for main, count in mine.items():
                    expected[episode.split, f"{main} of {episode.name}"] = count
            else:  # in these stores a recording is a group
                expected[episode.split, episode.name] = added(*mine.values())
        assert found == expected


def test_a_filter_and_a_split_bound_what_is_counted(store, run):
    code, out, _ = run("labels", store, "--split", "train", "--min-context", "25f", "--json")
    assert code == 0
    (line,) = json.loads(out)["splits"]
    counts = [slow_count(item, main, 25) for item in EPISODES[:2] for main in SPEAKERS]
    assert counted(line) == added(*counts)
    # Of all splits, those without a recording are counted as nothing.
    code, out, _ = run("labels", store, "--recordings", "held*", "--json")
    assert code == 0
    assert [line["rows"] for line in json.loads(out)["splits"]] == [0, 600, 0]
    assert json.loads(out)["splits"][0]["base_rate"] is None


def test_the_shards_alone_give_the_same(store, tmp_path, run):
    alone = tmp_path / "alone"
    shutil.copytree(store / "shards", alone)
    for place in (store / "shards", alone):
        code, out, _ = run("labels", place, "--by", "recording", "--json")
        assert code == 0
        report = json.loads(out)
        whole = json.loads(run("labels", store, "--by", "recording", "--json")[1])
        assert {**report, "path": ""} == {**whole, "path": ""}


def test_a_recording_is_drawn_along_time_as_by_hand(store, run):
    code, out, _ = run("labels", store, "--show", "an episode, part 1")
    assert code == 0
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("speaker-00--speaker-01"))
    assert "1,600 rows, 14 positive, 11 ignored" in lines[start]
    assert lines[start + 1 : start + 6] == DRAWN
    assert lines[start + 6].startswith("speaker-01--speaker-00: 1,600 rows, 5 positive, 5 ignored")
    assert all(len(line) <= 80 for line in lines[start + 1 : start + 6])


def test_rows_that_the_filter_leaves_out_are_drawn_blank(store, run):
    _, out, _ = run(
        "labels", store, "--show", "another", "--min-context", "100f", "--exclude", "another*"
    )
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("speaker-00--speaker-01"))
    assert lines[start + 1 : start + 3] == [
        "    #                  #",
        "  0 " + " " * 10 + "-" * 9 + "+",
    ]


def test_json_tells_the_ranges_of_a_recording_that_is_shown(store, run):
    code, out, _ = run("labels", store, "--show", "an episode, part 1", "--json")
    assert code == 0
    report = json.loads(out)
    assert set(report) == {
        "path",
        "generation",
        "index_id",
        "annotations",
        "fold",
        "label",
        "label_text",
        "filter",
        "splits",
        "by",
        "items",
        "show",
    }
    assert report["by"] is None
    assert report["items"] == []
    shown = report["show"]
    assert (shown["name"], shown["split"]) == ("an episode, part 1", "train")
    first, second = shown["streams"]
    assert first["positive"] == [[20, 30], [36, 40]]
    assert first["ignored"] == [[30, 36], [775, 780]]
    assert first["negative"] == [[0, 20], [40, 775], [780, 1600]]
    us = FRAME_US
    assert first["asked_us"] == [[20 * us, 30 * us], [36 * us, 40 * us]]
    assert len(first["of_class_us"]) == 4
    assert second["positive"] == [[70, 75]]


def test_other_annotations_change_the_counts_and_no_byte_of_the_store(store, tmp_path, run):
    table = tmp_path / "mine/laughs.csv"
    table.parent.mkdir()
    table.write_text(f"recording,start,end,label,speaker\nanother,4,6,Laughter,{ANN}\n")
    before = contents(store)
    code, out, err = run("labels", store, "--annotations", table.parent, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["annotations"] == str(table.parent)
    # 13 rows of the recording's own are gone, 25 are new.
    own = json.loads(run("labels", store, "--json")[1])["splits"]
    changes = [a["positives"] - b["positives"] for a, b in zip(report["splits"], own, strict=True)]
    assert changes == [12, 0, 0]
    assert contents(store) == before
    code, out, err = run("labels", store, "--annotations", tmp_path / "gone")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1


def test_the_metadata_of_a_data_set_are_other_annotations(built, corpus, tmp_path, run):
    edited = tmp_path / "edited"
    shutil.copytree(corpus / "metadata", edited / "metadata")
    own = run("labels", built, "--json")[1]
    assert (
        json.loads(run("labels", built, "--annotations", corpus, "--json")[1])["splits"]
        == (json.loads(own)["splits"])
    )
    for path in edited.rglob(f"{EVENTS}/*/*.json"):
        found = json.loads(path.read_text())
        found["events"] = found["events"][: len(found["events"]) // 2]
        path.write_text(json.dumps(found))
    code, out, _ = run("labels", built, "--annotations", edited, "--json")
    assert code == 0
    fewer = [item["positives"] for item in json.loads(out)["splits"]]
    assert sum(fewer) < sum(item["positives"] for item in json.loads(own)["splits"])


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["STORE", "--show", "nobody"], 1, "has no recording 'nobody'"),
        (["STORE", "--split", "dev"], 2, "it has train, validation, test"),
        (["STORE", "--event", "Cry"], 2, "there are: Laughter"),
        (["STORE", "--recordings", "x*"], 2, "none of the 4 recordings"),
        (["STORE", "--split", "test", "--recordings", "x*"], 2, "of split 'test'"),
        (["STORE", "--by", "show"], 2, "--by"),
        (["STORE", "--merge-gap", "3"], 2, "3s (seconds) or 3f"),
        (["STORE", "--merge-gap", "0.8"], 2, "0.8s (seconds) or 10f"),
        (["STORE", "--label", "onset:99999999999999999999f"], 2, "longer than any recording"),
        (["STORE", "--edge", "9223372036854775807f"], 2, "longer than any recording"),
        (["STORE", "--lead", "-99999999999999999999s"], 2, "longer than any recording"),
        (["STORE", "--label", "regression", "--legacy", "--until", "interval"], 2, "no until"),
        (["STORE", "--label", "onset:1s", "--until", "interval"], 2, "only regression has"),
        (["STORE", "--annotations", "s3://x/y"], 2, "--annotations: s3://x/y is a URL, and"),
        (["STORE", "--annotations", "EMPTY"], 2, "no annotation file in it"),
        (["STORE", "--annotations", "nowhere"], 1, "nowhere: no such file"),
        (["STORE", "--folds", "9", "--fold", "0"], 2, "use fewer folds"),
        (["nowhere"], 1, "nowhere does not exist"),
        (["EMPTY"], 1, "EMPTY"),
    ],
)
def test_what_cannot_work_is_one_line_and_an_exit_code(
    arguments, exit_code, said, store, tmp_path, run, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    code, out, err = run("labels", *(store if item == "STORE" else item for item in arguments))
    assert (code, out) == (exit_code, "")
    assert said in err
    assert err.count("\n") == 1


def test_no_torch_is_loaded_and_no_byte_is_coloured(store):
    check = (
        "import sys\n"
        "from laughstore.cli.main import main\n"
        f"code = main(['labels', {str(store)!r}, '--show', 'another', '--by', 'speaker'])\n"
        "heavy = {'torch', 'matplotlib', 'sklearn', 'zarr'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "raise SystemExit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check],
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stdout.isascii()
