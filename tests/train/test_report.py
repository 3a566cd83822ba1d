"""The report of a run: one page with the numbers of an evaluation, whatever the data are called."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from laughstore.errors import BadRecording, ConfigError, NotFound
from laughstore.labels import LabelSpec
from tests.stores import SPEAKERS, Episode, random_features, write_store
from train import Progress, evaluate, train, write_report
from train.evaluation.baselines import BASELINES
from train.report.sound import MARGIN_US, WHOLE_US, Clip
from train.runs.run import Run

from .conftest import DIM, Planted, config_for, planted_episodes
from .test_report_page import HOSTILE, check_page


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def rows_of(page: str) -> dict[str, list[str]]:
    """Cells of the rows of all tables, by the first and by the second of them."""
    found = {}
    for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL):
        cells = [unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<td.*?</td>", row)]
        for cell in cells[:2]:
            found.setdefault(cell, cells)
    return found


@pytest.fixture(scope="module")
def page_path(trained, tmp_path_factory) -> Path:
    config, _, _ = trained
    out = tmp_path_factory.mktemp("report") / "pages" / "page.html"
    assert write_report(config.out, out=out, device="cpu").path == out
    return out


def test_a_report_has_the_numbers_of_the_evaluation_and_writes_nothing_else(
    trained, page_path, tmp_path
):
    config, _, _ = trained
    found = evaluate(config.out, device="cpu", timelines=0, out=tmp_path / "evaluation")
    before = {path: path.stat().st_mtime_ns for path in config.out.rglob("*")}
    report = write_report(config.out, out=tmp_path / "page.html", device="cpu")
    assert {path: path.stat().st_mtime_ns for path in config.out.rglob("*")} == before
    assert report.result.to_json() == found.to_json()
    assert report.num_bytes == len(report.path.read_bytes())
    assert report.path.read_bytes() == page_path.read_bytes()
    assert set(report.recordings) == {item.name for item in found.recordings}
    page = report.path.read_text("utf-8")
    texts = " ".join(check_page(page).texts)
    for name in ("average_precision", "auroc", "f1", "recall"):
        assert f"{found.metrics.values[name]:.3f}" in texts
    for item in found.recordings:
        assert item.name in texts
    data = data_of(page)
    assert set(data["charts"]) == {
        *("precision-recall", "roc", "calibration", "trade-off"),
        *("loss", "validation"),
    }
    assert data["threshold"] == found.metrics.threshold


def test_a_report_shows_what_an_evaluation_has_beside_its_numbers(trained, page_path, tmp_path):
    """Baselines, kinds of laugh and probabilities at the temperature are those of metrics.json."""
    config, _, _ = trained
    found = evaluate(config.out, device="cpu", timelines=0, out=tmp_path / "evaluation")
    page = page_path.read_text("utf-8")
    rows = rows_of(page)
    for name, item in found.baselines.items():
        assert item.metrics is not None
        assert f"{item.metrics.average_precision:.3f}" in rows[BASELINES[name]]
    lengths = found.strata["laugh_length"].strata
    with_rows = {name: item for name, item in lengths.items() if item.metrics.num_positives}
    assert with_rows
    for name, item in with_rows.items():
        assert item.num_events is not None
        told = rows[name]
        assert f"{item.metrics.average_precision:.3f}" in told
        assert f"{item.metrics.num_positives:,}" in told
        assert f"{item.num_events:,}" in told
    tempered = found.tempered
    assert tempered is not None
    assert tempered.calibration is not None
    assert f"{tempered.temperature.value:.3f}" in rows["temperature"]
    assert f"{tempered.calibration.log_loss:.5f}" in rows["log-loss at this temperature"]
    drawn = data_of(page)["charts"]["calibration"]["data"][-1]
    assert drawn["x"] == pytest.approx(tempered.calibration.bins.said.tolist())
    assert drawn["y"] == pytest.approx(tempered.calibration.bins.came.tolist())


def test_names_of_users_are_text_and_nothing_else(tmp_path):
    """A recording and both of its speakers are called what would run if it were not escaped."""
    called = {name: f"{name} {HOSTILE}" for name in SPEAKERS}
    episodes = [
        replace(
            item,
            name=f"{item.name} {HOSTILE}",
            speakers=tuple(called.values()),
            events=[replace(event, speaker=called[event.speaker or ""]) for event in item.events],
        )
        for item in planted_episodes()
    ]
    store = write_store(
        tmp_path / "store", episodes, random_features(DIM), dim=DIM, block_frames=32,
        shard_frames=256,
    )  # fmt: skip
    config = config_for(store / "shards", tmp_path / "<script>alert(3)<", epochs=2)
    train(config)
    report = write_report(config.out, device="cpu", bootstrap=50, null=20)
    page = report.path.read_text("utf-8")
    found = check_page(page)
    assert page.count("alert(1)") == page.count("&lt;script&gt;alert(1)") + page.count(
        "\\u003cscript\\u003ealert(1)"
    )
    assert "<script>alert(" not in page
    assert any(HOSTILE in text for text in found.texts)
    assert [item["name"].endswith(HOSTILE) for item in data_of(page)["timelines"]] == [True] * 2


@pytest.mark.parametrize("label", ["onset:0.8s", "regression:3s"])
def test_labels_of_other_kinds_have_their_own_lists(planted_shards, tmp_path, label):
    config = config_for(planted_shards, tmp_path / "run", label=LabelSpec(label), epochs=2)
    train(config)
    report = write_report(config.out, device="cpu", bootstrap=50, null=20)
    page = report.path.read_text("utf-8")
    data = data_of(page)
    check_page(page)
    if label.startswith("onset"):
        foreseen = report.result.events.foreseen
        assert foreseen is not None
        assert data["kind"] == "onset"
        assert "Worst false alarms" in page
        assert f"{foreseen.num_onsets - len(foreseen.lead_s):,} in all" in page
    else:
        assert data["kind"] == "numbers"
        assert "Largest overestimates" in page
        assert "RMSE" in page
        assert "mean target in train" in rows_of(page)
        assert 'id="by-kind"' not in page  # no laugh stands behind a number
        assert all(stream["targets"] for item in data["timelines"] for stream in item["streams"])
        assert "roc" in data["charts"]
        assert "calibration" not in data["charts"]


def test_without_a_threshold_or_a_positive_row_there_is_a_page_that_says_why(own_shards, tmp_path):
    def press(report: Progress) -> None:
        if report.phase == "train" and report.done == 3:
            raise KeyboardInterrupt

    config = config_for(own_shards, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=press)
    shutil.rmtree(own_shards.parent)  # its own validation: nothing can be fitted any more
    silent = [Episode("quiet, part 0", "test", 400), Episode("quiet, part 1", "test", 400)]
    laughing = [item for item in planted_episodes() if item.split == "train"][:1]
    store = write_store(
        tmp_path / "store", [*silent, *laughing], Planted((*silent, *laughing)), dim=DIM,
        block_frames=32, shard_frames=256,
    )  # fmt: skip
    report = write_report(
        config.out, split="train", shards=store / "shards", checkpoint="last", device="cpu",
        null=20,
    )  # fmt: skip
    reason = report.result.point.reason
    assert reason is not None
    assert report.path == config.out / "report-train.html"
    page = report.path.read_text("utf-8")
    texts = " ".join(check_page(page).texts)
    assert reason in texts
    assert "The run was trained on these rows" in texts
    assert data_of(page)["spots"] == []
    report = write_report(
        config.out, split="test", shards=store / "shards", checkpoint="last", device="cpu",
        out=tmp_path / "none.html",
    )  # fmt: skip
    page = report.path.read_text("utf-8")
    assert "no positive rows" in " ".join(check_page(page).texts)
    assert "precision-recall" not in data_of(page)["charts"]
    assert report.result.metrics.average_precision is None


def test_sound_is_asked_for_where_it_is_listed_and_its_absence_stops_nothing(
    trained, tmp_path, caplog
):
    config, _, _ = trained
    asked: dict[str, list[tuple[int, int]]] = {}

    def clips(recording: str, spans: Sequence[tuple[int, int]]) -> list[Clip]:
        asked[recording] = list(spans)
        if len(asked) == 2:
            raise BadRecording(f"{recording}: it is gone")
        return [Clip(start, end, "audio/mpeg", b"\xff\xfb") for start, end in spans]

    report = write_report(
        config.out, out=tmp_path / "a.html", device="cpu", clips=clips, bootstrap=0, null=0
    )
    assert len(asked) == 2
    assert report.num_clips == 1
    assert "it is gone" in caplog.text
    timelines = data_of(report.path.read_text("utf-8"))["timelines"]
    assert [len(item["sounds"]) for item in timelines] == [1, 0]
    whole = asked[timelines[0]["id"]]
    assert whole == [(0, round(timelines[0]["end"] * 1e6))]
    assert whole[0][1] < WHOLE_US
    asked.clear()
    report = write_report(
        config.out, out=tmp_path / "b.html", device="cpu", clips=clips, recordings=0, bootstrap=0,
        null=0,
    )  # fmt: skip
    data = data_of(report.path.read_text("utf-8"))
    for number, item in enumerate(data["timelines"]):
        spots = [spot for spot in data["spots"] if spot["timeline"] == number]
        assert spots
        for spot in spots:
            assert any(
                a <= max(spot["start"] * 1e6 - MARGIN_US, 0) + 1 and spot["end"] * 1e6 <= b + 1
                for a, b in asked[item["id"]]
            )
        assert item["excerpts"] is not None


def test_what_cannot_work_is_refused_before_anything_is_scored(trained, tmp_path):
    config, _, _ = trained
    out = tmp_path / "page.html"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="exists"):
        write_report(config.out, out=out, device="cpu")
    assert out.read_text() == "mine"
    with pytest.raises(ConfigError, match="exists"):
        write_report(config.out, out=tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="recordings is -1"):
        write_report(config.out, recordings=-1)
    with pytest.raises(NotFound, match="no training run"):
        write_report(tmp_path)
    assert not (Run.open(config.out).path / "report.html").exists()


def test_the_page_of_a_split_replaces_that_of_the_same_split(trained):
    config, _, _ = trained
    first = write_report(config.out, device="cpu", bootstrap=0, null=0)
    assert first.path == config.out / "report.html"
    second = write_report(config.out, device="cpu", bootstrap=0, null=0, recordings=0)
    assert second.path == first.path
    assert second.num_bytes != first.num_bytes
    second.path.unlink()
