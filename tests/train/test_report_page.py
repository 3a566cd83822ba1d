"""Pages hold what users' data hold, and run nothing of it; numbers of charts are exact."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_auc_score, roc_curve

from laughstore.errors import ConfigError
from train.evaluation.calibration import ReliabilityBins
from train.report.charts import Chart
from train.report.curves import (
    calibration_chart,
    precision_recall_chart,
    roc_chart,
)
from train.report.page import asset, script_json
from train.report.tables import Cell, Column, Table, clock, number, percent
from train.report.training import read_log, training_charts
from train.scoring.confusion import Confusion
from train.scoring.ranking import RankedRows

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'&amp;\u2028 läch ☃ {{7*7}}"
)


def test_json_in_a_page_holds_anything_and_ends_no_script():
    text = script_json({HOSTILE: [HOSTILE, 1.5, None]})
    assert json.loads(text) == {HOSTILE: [HOSTILE, 1.5, None]}
    assert not set("<>&\u2028") & set(text)
    with pytest.raises(ValueError, match="JSON"):
        script_json([float("nan")])


class Elements(HTMLParser):
    """Tags with their attributes, and the text of scripts and of everything else."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        is_script = self.cdata_elem == "script"
        (self.scripts if is_script else self.texts).append(data)


def check_page(page: str) -> Elements:
    """Only our scripts can run, and nothing is loaded: from any page that a report is."""
    found = Elements(page)
    # A parser hands out long scripts in pieces; a browser digests them whole.
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) >= 2
    (policy,) = (
        attributes["content"]
        for tag, attributes in found.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    allowed = re.search(r"script-src ([^;]*);", policy or "")
    assert allowed is not None
    digests = [
        base64.b64encode(hashlib.sha256(item.encode()).digest()).decode() for item in scripts
    ]
    assert allowed[1].split() == [f"'sha256-{item}'" for item in digests]
    assert "default-src 'none'" in (policy or "")
    for tag, attributes in found.tags:
        assert tag not in ("img", "iframe", "object", "embed", "link", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        assert not attributes.get("src")
        href = attributes.get("href")
        assert href is None or href.startswith("#")
    return found


def test_scripts_and_styles_of_ours_name_no_address():
    for name in ("page.css", "report.css", "page.js", "series.js", "figure.js", "player.js"):
        assert not re.search(r"https?://|@import|url\(", asset(name)), name
    assert not re.search(r"https?://|innerHTML|eval\(", asset("timeline.js"))


def test_a_row_must_fit_its_table():
    with pytest.raises(ConfigError, match="1 cells; there are 2 columns"):
        Table("Rows", [Column("a"), Column("b")], [[Cell.name("x")]])


def test_a_chart_has_a_name_that_can_stand_in_a_page():
    with pytest.raises(ConfigError, match="a-z"):
        Chart("</script>", "t", [])


@pytest.mark.parametrize(
    ("seconds", "digits", "text"),
    [(0, 0, "0:00"), (59.96, 1, "1:00.0"), (3599.99, 1, "1:00:00.0"), (65.25, 2, "1:05.25"),
     (7325, 0, "2:02:05"), (-0.08, 2, "-0:00.08")],
)  # fmt: skip
def test_moments_are_written_as_clocks(seconds, digits, text):
    assert clock(seconds, digits) == text


def test_what_is_undefined_is_a_dash_and_sorted_last():
    assert (number(None), percent(None)) == ("\N{EN DASH}", "\N{EN DASH}")
    cell = Cell.of(None, why="no positive rows")
    assert (cell.order, cell.hint) == (None, "no positive rows")
    assert Cell.of(0.5, why="unused").hint == ""


def scored_rows(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(num) < 0.05
    score = np.round(rng.random(num) + 0.3 * positive, 3).astype(np.float32)
    return positive, score


@pytest.mark.parametrize("num", [40, 20_000])
def test_points_of_curves_are_those_of_scikit_learn(num):
    positive, score = scored_rows(num)
    positive[:3] = True
    ranked = RankedRows.of(positive, score)
    ap = ranked.average_precision
    at = Confusion.of(positive, score, 0.7)
    (tn, fp), (fn, tp) = confusion_matrix(positive, score >= np.float32(0.7)).tolist()
    assert at == Confusion(tp=tp, fp=fp, fn=fn, tn=tn)
    curve = precision_recall_chart(ranked, ap, at).traces
    precision, recall, _ = precision_recall_curve(positive, score)
    exact = set(zip(recall.tolist(), precision.tolist(), strict=True))
    drawn = list(zip(curve[0]["x"], curve[0]["y"], strict=True))
    assert set(drawn[1:]) <= exact
    assert drawn[0] == (0.0, drawn[1][1])
    assert drawn[-1][0] == 1.0
    assert (curve[2]["x"], curve[2]["y"]) == ([tp / (tp + fn)], [tp / (tp + fp)])
    # Under the steps that are drawn lies the average precision, but for points left out.
    xs, ys = np.array(curve[0]["x"]), np.array(curve[0]["y"])
    assert np.sum(np.diff(xs) * ys[1:]) == pytest.approx(ap, abs=1e-12 if num < 300 else 0.02)
    roc = roc_chart(ranked, float(roc_auc_score(positive, score)), at).traces
    false_rate, true_rate, _ = roc_curve(positive, score, drop_intermediate=False)
    exact = set(zip(false_rate.tolist(), true_rate.tolist(), strict=True))
    assert set(zip(roc[0]["x"], roc[0]["y"], strict=True)) <= exact
    assert len(roc[0]["x"]) <= 700


def test_a_calibration_chart_shows_the_bins():
    positive, score = scored_rows(1000)
    bins = ReliabilityBins.of(positive, np.minimum(score, 1))
    diagonal, drawn = calibration_chart(bins).traces
    assert drawn["x"] == bins.said.tolist()
    assert drawn["y"] == bins.came.tolist()
    assert diagonal["x"][1] >= max(*drawn["x"], *drawn["y"])


def test_a_log_is_read_up_to_where_a_kill_cut_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_log(path) == []
    lines = [{"kind": "train", "step": step, "epoch": 0, "loss": 1 / (step + 1), "lr": 1e-3}
             for step in range(2500)]  # fmt: skip
    told = {"kind": "validation", "step": 2500, "epoch": 0, "average_precision": 0.5}
    text = "\n".join(json.dumps(item) for item in [*lines, told])
    path.write_text(text + '\n{"kind": "train", "st')
    read = read_log(path)
    assert read == [*lines, told]
    loss, validation = training_charts(read, "average_precision", 2500)
    assert len(loss.traces[0]["x"]) <= 1000
    assert loss.traces[0]["x"][-1] == 2499
    assert validation.traces[0]["y"] == [0.5]
    assert [item["name"] for item in validation.traces] == ["AP", "this checkpoint"]
    assert training_charts([], "average_precision", None) == []
    nothing = [{"kind": "validation", "step": 1, "epoch": 0, "average_precision": None}]
    assert training_charts(nothing, "average_precision", 1) == []
