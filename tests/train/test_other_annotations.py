"""Runs trained with other annotations: remembered, used again, or refused when they are not there.

That labels change, and how, is tested with the store.
"""

import json
import shutil
from pathlib import Path

import pytest

from laughstore import layout
from laughstore.cli.main import main
from laughstore.errors import ConfigError, NotFound
from laughstore.files import sha256_file
from laughstore.store import open_shards
from tests.train.conftest import config_for
from train import FrameStream, evaluate, train
from train.runs.run import Run


def contents(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): sha256_file(path)
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.parent.name != layout.STATS
    }


def laughs(shards: Path, path: Path, *, later_s: int = 0) -> Path:
    """A table of all laughs of a store, each some seconds later."""
    index = open_shards(shards)
    lines = ["recording,start,end,label,speaker"]
    for recording in index.recordings:
        tables = index.tables(recording)
        events = tables.events
        for i in range(len(events)):
            start, end = (events.start_us[i] / 1e6, events.end_us[i] / 1e6)
            name = tables.speakers[events.speaker[i]]
            lines.append(f'"{recording.name}",{start + later_s},{end + later_s},Laughter,{name}')
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def table(planted_shards: Path, tmp_path: Path) -> Path:
    """A folder of annotations: every laugh of every recording one second later."""
    return laughs(planted_shards, tmp_path / "later/laughs.csv", later_s=1).parent


@pytest.mark.slow
def test_a_run_remembers_its_annotations(planted_shards, table, tmp_path, capsys):
    before = contents(planted_shards.parent)
    config = config_for(planted_shards, tmp_path / "run", annotations=table, epochs=1)
    result = train(config)
    opened = Run.open(result.run)
    assert opened.config.annotations == table.absolute()
    # The laughs that the features tell of are where the store says, not a second later.
    own = evaluate(
        result.run, annotations=laughs(planted_shards, tmp_path / "own.csv"), timelines=0
    )
    assert own.other_annotations is not None
    assert "the run was trained on" in own.other_annotations
    again = evaluate(result.run, timelines=0)
    assert again.other_annotations is None
    assert again.metrics.num_rows == result.best.num_rows
    assert again.metrics.average_precision == pytest.approx(result.best.average_precision)
    assert own.metrics.average_precision != again.metrics.average_precision
    written = json.loads((again.out / "metrics.json").read_text())
    assert written["annotations"] == str(table.absolute())
    # What was trained with is there under the same path, but no longer the same.
    path = table / "laughs.csv"
    text = path.read_text()
    path.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    with pytest.raises(ConfigError, match="has changed since"):
        evaluate(result.run, timelines=0)
    changed = evaluate(result.run, annotations=table, timelines=0)
    assert changed.other_annotations is not None
    path.write_text(text)
    assert evaluate(result.run, timelines=0).metrics == again.metrics
    shutil.rmtree(table)
    with pytest.raises(NotFound, match="is gone"):
        evaluate(result.run, timelines=0)
    assert main(["evaluate", str(result.run)]) == 1
    assert "name others with --annotations" in capsys.readouterr().err
    assert contents(planted_shards.parent) == before


def test_the_command_line_trains_and_evaluates_with_them(planted_shards, table, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--global-batch", "512", "--lanes", "16", "--epochs", "1", "--device", "cpu", "-q"]
    command = ["train", "--shards", str(planted_shards), "--out", str(out)]
    assert main([*command, "--annotations", str(table), *words]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), "--timelines", "0", "--json", "-q"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["annotations"] == str(table.absolute())
    assert report["other_annotations"] is None


def test_the_stream_of_other_annotations_is_another_one(planted_shards, table, tmp_path):
    from laughstore.other_annotations import read_other_annotations

    index = open_shards(planted_shards)
    moved = shutil.copytree(table, tmp_path / "moved")
    with (
        FrameStream(index, "train") as own,
        FrameStream(read_other_annotations(index, table), "train") as other,
        FrameStream(read_other_annotations(index, moved), "train") as same,
    ):
        assert other.identity == same.identity != own.identity
        same.load_state_dict(other.state_dict())
        with pytest.raises(ConfigError, match="targets was"):
            own.load_state_dict(other.state_dict())
