"""Formulas of docs/scaling.md against numbers worked out by hand, real stores and today's code."""

import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import extrapolation, scale_limits, scaling_page
from benchmarks.data import DIM, make_store
from benchmarks.extrapolation import GEOMETRY, PODCAST_FILLERS, Coefficients, Line, Size
from benchmarks.large_index import LargeStore
from benchmarks.quantities import quantity
from benchmarks.scale_limits import hours_at, limits
from benchmarks.scaling_epochs import Epochs, Setting
from benchmarks.scaling_page import AXES, DOCUMENT, Page, ScalingError, read_reports
from laughstore.store import open_store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(read_reports())


def _coefficients(**lines: Line) -> Coefficients:
    """Coefficients of which all lines are 1 + 2 R but those given."""
    plain = dict.fromkeys(extrapolation.LINES, Line(1.0, 2.0, 0.0, 1, 2))
    return Coefficients(**plain | lines, warm_bytes_per_s=8e9, cold_bytes_per_s=1e9)


def test_podcast_fillers_has_the_size_worked_out_by_hand():
    size = PODCAST_FILLERS
    assert size.frames == 2 * 145 * 45_000 == 13_050_000
    assert size.frame_bytes == 106_905_600_000  # the 107 GB of the design
    assert size.blocks == 102_153  # 13,050,000 / 128 + 199 is 102,152.1
    assert size.shards == 3_386  # 13,050,000 / 4,096 + 199 is 3,385.04
    assert size.shard_bytes == (102_153 * 129 + 3_386) * 8_192
    assert size.code_bytes == 3_386 * 4_096 * 34
    assert Size.of_hours(145) == size
    assert Size.of_hours(1e6).recordings == 1_372_414


def test_a_million_hours_are_what_a_pocket_calculator_says():
    size = Size.of_hours(1e6)
    assert size.frames == 90_000_000_000
    assert size.frame_bytes == 737_280_000_000_000
    # 737.28 TB over 8 ranks and 3,600 seconds.
    assert extrapolation.epoch_bytes_per_s(size, 8, 1) == pytest.approx(25.6e9)
    assert extrapolation.epoch_hours(size, 8e9) == pytest.approx(25.6)
    # 2 x 6.577e9 + 1.572864e9 operations; 395.6e12 a second.
    assert pytest.approx(14.726864e9) == extrapolation.LM_FLOPS
    assert extrapolation.row_frames_per_s() == pytest.approx(26_862.4, rel=1e-5)
    assert extrapolation.extraction_hours(size) == pytest.approx(930.666, rel=1e-5)
    assert extrapolation.extraction_hours(size, 0.8) == pytest.approx(465.333, rel=1e-5)


def test_the_sizes_are_those_of_recordings_of_all_lengths():
    lengths = np.random.default_rng(0).lognormal(0, 0.5, 2_000)
    frames = np.rint(lengths / lengths.sum() * 1_457 * 45_000).astype(int).tolist()
    size = Size(sum(frames) / 45_000, len(frames))
    assert size.frames == 2 * sum(frames)
    for name, counted in {
        "blocks": 2 * sum(map(GEOMETRY.num_blocks, frames)),
        "shards": 2 * sum(map(GEOMETRY.num_shards, frames)),
        "shard_bytes": 2 * sum(map(GEOMETRY.stream_bytes, frames)),
    }.items():
        assert getattr(size, name) == pytest.approx(counted, rel=2e-3), name


def test_files_and_folders_are_those_of_a_store_on_a_disk(tmp_path):
    data = make_store(tmp_path, 0.002)
    size = Size(data.num_frames / 2 / 45_000, len(data.index.recordings))
    streams = [
        path
        for root in ("features.zarr", "codes.zarr")
        for path in (data.store / root / "train").glob("*/*")
        if path.is_dir()
    ]
    assert len(streams) == 2 * size.streams
    inodes = {
        item.stat().st_ino for path in (*streams, *data.shards) for item in (path, *path.rglob("*"))
    }
    assert len(inodes) == 4 * data.index.num_shards + 6 * size.streams
    assert replace(size).files == 4 * size.shards + 6 * size.streams


def test_bytes_of_a_store_on_a_disk_follow_from_its_blocks_and_shards(tmp_path):
    data = make_store(tmp_path, 0.002, block_frames=32)
    assert data.index.block_frames == 32
    row = 2 * DIM
    expected = (data.index.num_blocks * 33 + data.index.num_shards) * row
    assert sum(path.stat().st_size for path in data.shards) == expected


def test_a_line_through_points_of_a_line_misses_none():
    line = Line.fitted([10, 100, 1_000], [50.0, 410.0, 4_010.0])
    assert line.at(1e6) == pytest.approx(4_000_010)
    assert (line.at_zero, line.slope) == pytest.approx((10, 4))
    assert line.residual < 1e-9
    assert (line.first, line.last) == (10, 1_000)


def test_the_residual_is_the_largest_part_of_a_point_that_a_line_misses():
    line = Line.fitted([1, 2, 4], [1.0, 2.0, 5.0])
    missed = [abs(line.at(x) - y) / y for x, y in ((1, 1.0), (2, 2.0), (4, 5.0))]
    assert line.residual == pytest.approx(max(missed))
    # No line has less in squares of relative errors.
    squares = sum(part * part for part in missed)
    for at_zero, slope in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        other = replace(line, at_zero=line.at_zero + at_zero, slope=line.slope + slope)
        parts = [(other.at(x) - y) / y for x, y in ((1, 1.0), (2, 2.0), (4, 5.0))]
        assert sum(part * part for part in parts) > squares


def test_a_rank_holds_windows_of_what_is_not_mapped_and_larger_ids_once_there_are_too_many():
    found = _coefficients(rank_bytes=Line(0.0, 1e6, 0.0, 1, 2))
    small, large = Size.of_hours(23_000), Size.of_hours(24_500)
    assert small.blocks * 128 < 2**31 < large.blocks * 128
    windows = 2 * 64 * 8 * 2**20
    mapped = Size.of_hours(2_000)
    assert mapped.shards < 50_000 < small.shards
    assert extrapolation.rank_bytes(mapped, found) == mapped.recordings * 1e6
    assert extrapolation.rank_bytes(small, found) == small.recordings * 1e6 + windows
    more = 4 * large.frames + windows
    assert extrapolation.rank_bytes(large, found) == large.recordings * 1e6 + more


def test_a_limit_is_passed_where_its_formula_says():
    assert hours_at(10, lambda size: size.hours) == pytest.approx(10, rel=1e-5)
    found = {item.what.split(" ")[0]: item for item in limits(_coefficients())}
    # 90,000 / 4,096 + 199 / 145 shards an hour are 23.3451.
    assert found["mapped"].hours == pytest.approx(50_000 / 23.3451, rel=1e-3)
    # 100,000 recordings of 145 / 199 hours.
    assert found["files"].hours == pytest.approx(72_864, rel=1e-3)
    # 1 + 2 R bytes; 32 MiB.
    assert found["manifest"].hours == pytest.approx((2**25 - 1) / 2 * 145 / 199, rel=1e-3)
    hours = [item.hours for item in limits(_coefficients())]
    assert hours == sorted(hours)


def test_limits_are_those_that_stores_meet():
    """A store of twice as many recordings as the limit of JSON allows is refused by the writer."""
    many = [{"name": "x" * 100}] * (scale_limits.sealed.MAX_BYTES // 100)
    with pytest.raises(scale_limits.sealed.LaughstoreError, match="fewer recordings"):
        scale_limits.sealed.seal({"format": "laughstore-index", "recordings": many})


def test_measured_bytes_are_those_that_todays_code_writes(tmp_path, page):
    LargeStore(20).write(tmp_path)
    open_store(tmp_path)
    for field, path in {
        "manifest_bytes": "store.json",
        "plan_bytes": "plans/000001.json",
        "columns_bytes": "shards/index-000001.columns",
    }.items():
        line = getattr(page.found, field)
        more = line.at(20) - (tmp_path / path).stat().st_size
        # The lines are of 200 recordings and more: what a store has once counts little there.
        assert abs(more) < 0.1 * line.at(20) + 2_000, field


def test_the_document_is_what_the_committed_results_give(page):
    text = DOCUMENT.read_text()
    assert page.filled(text) == text


def test_the_plots_show_the_committed_results(page):
    assert len(page.pictures) == len(AXES) + 1
    for picture in page.pictures.values():
        assert picture.stale() == []


def test_another_number_in_a_result_makes_document_and_plot_stale(page):
    reports = deepcopy(read_reports())
    item = next(
        item for item in reports["ranks"]["results"] if item["name"] == "FrameStream, all ranks"
    )
    item["median"] *= 1.5
    other = Page(reports)
    assert len(other.pictures["ranks"].stale()) == 2
    assert other.pictures["size"].stale() == []
    text = DOCUMENT.read_text()
    assert other.filled(text) != text


def test_a_plot_is_the_same_each_time_and_says_what_it_shows(page, tmp_path):
    picture = page.pictures["ranks"]
    assert picture.stale(tmp_path) == [
        tmp_path / "scaling_ranks.png",
        tmp_path / "scaling_ranks.svg",
    ]
    picture.draw(tmp_path / "once")
    picture.draw(tmp_path / "again")
    assert picture.stale(tmp_path / "once") == []
    for suffix in (".png", ".svg"):
        name = f"scaling_ranks{suffix}"
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_every_number_of_the_table_says_where_it_comes_from(page):
    lines = [line for line in page.parts()["table"].split("\n") if line.startswith("| ")][1:]
    assert len(lines) == len(page.rows)
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
        assert len(cells) == len(extrapolation.SIZES)
        assert all(cell.removesuffix("†")[-2:] in (" m", " f", " c", " a") for cell in cells), line


def test_what_is_beyond_a_limit_is_marked(page):
    manifest = next(item for item in page.limits if item.what.startswith("manifest"))
    assert 1e4 < manifest.hours < 1e6
    row = next(
        line for line in page.parts()["table"].split("\n") if line.startswith("| manifest (JSON)")
    )
    *_, ten, _hundred, million = (cell.strip() for cell in row.strip("|").split("|"))
    assert not ten.endswith("†")
    assert million.endswith("†")


def test_columns_have_room_for_as_many_recordings_as_an_index_names(page):
    hours = {item.what.split(" (")[0]: item.hours for item in page.limits}
    assert hours["columns of the index"] > hours["index `index.json`"]


def test_what_was_not_read_from_a_disk_is_left_out(page):
    reports = {name: report for name, report in read_reports().items() if name != "cold"}
    warm_only = Page(reports)
    assert len(warm_only.rows) == len(page.rows) - 1
    assert "the disk" not in warm_only.parts()["fits"]


def test_a_document_without_a_place_for_a_part_is_refused(page):
    with pytest.raises(ScalingError, match=r"scaling.md needs one line <!-- scaling:machine:begin"):
        page.filled("# How cost grows\n")


def test_results_of_a_quick_run_make_no_page(tmp_path):
    for name, report in read_reports().items():
        stem = "stream_cold" if name == "cold" else f"scaling_{name}"
        quick = {**report, "settings": {**report["settings"], "quick": True}}
        (tmp_path / f"{stem}.json").write_text(json.dumps(quick))
    with pytest.raises(ScalingError, match="--quick"):
        read_reports(tmp_path)
    (tmp_path / "stream_cold.json").unlink()
    (tmp_path / "scaling_size.json").unlink()
    with pytest.raises(ScalingError, match=r"scaling_size.json is missing; .*bench_scaling"):
        read_reports(tmp_path)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "B", "0 B"),
        (999, "B", "999 B"),
        (33_554_432, "B", "33.6 MB"),
        (737_280_000_000_000, "B", "737 TB"),
        (2.56e10, "B/s", "25.6 GB/s"),
        (0.0123, "s", "12.3 ms"),
        (4.2e-5, "s", "42 us"),
        (90, "s", "90 s"),
        (1_372_414, "", "1,370,000"),
        (930.666, "h", "931 h"),
        (-0.0123, "s", "-12.3 ms"),
    ],
)
def test_quantities_have_three_digits_that_count(value, unit, text):
    assert quantity(value, unit) == text


def test_epochs_of_ranks_are_checked_frame_by_frame(tmp_path):
    data = make_store(tmp_path, 0.004)
    ranks = [Epochs(data.store, Setting(rank=rank, world_size=2)) for rank in range(2)]
    num_bytes = sum(rank.run() for rank in ranks)
    assert num_bytes == 2 * DIM * data.num_frames
    assert ranks[0].num_steps == ranks[1].num_steps > 0
    together = np.concatenate([rank.delivered() for rank in ranks])
    assert np.array_equal(np.sort(together), data.frame_ids)
    with pytest.raises(AssertionError, match="exactly once"):
        ranks[0].check()  # which has half of them
    ranks[0]._said[0] = ranks[0]._said[0].flip(0)
    with pytest.raises(AssertionError, match="other frames than it said"):
        ranks[0].delivered()
    for rank in ranks:
        rank.close()


def test_a_part_of_a_store_is_read_by_its_recordings(tmp_path):
    data = make_store(tmp_path, 0.004)
    epochs = Epochs(data.store, Setting("episode-[0-1]-*"))
    epochs.run()
    epochs.check()
    first_two = [s for item in data.index.recordings[:2] for s in item.streams]
    assert len(epochs.frames) == sum(stream.num_frames for stream in first_two)
    epochs.close()


@pytest.mark.slow
def test_the_script_runs_in_quick_mode_and_measures_every_axis(tmp_path):
    command = [sys.executable, "-m", "benchmarks.bench_scaling", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=280)
    for axis in AXES:
        report = json.loads((tmp_path / f"scaling_{axis}.json").read_text())
        assert report["name"] == f"scaling_{axis}"
        assert report["settings"]["quick"] is True
        assert len(report["results"]) >= 3
        committed = scaling_page.read_reports()[axis]["results"]
        assert {item["name"] for item in report["results"]} == {item["name"] for item in committed}
        for item in report["results"]:
            assert 0 <= item["low"] <= item["median"] <= item["high"]
