"""A report in a browser: opened from disk without a network, sorted, zoomed, listened to.

Runs where Chromium and the group `browser` are installed:
    apt-get install chromium && uv sync --group browser
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.sound.excerpts import MEDIA_TYPE, encode_mp3
from tests.stores import SPEAKERS, Episode, laugh, write_store
from train import train, write_report
from train.report.sound import Clip

from .conftest import DIM, Planted, config_for, some_laughs
from .test_report_page import HOSTILE

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: uv sync --group browser"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
RATE = 24_000


@dataclass
class Opened:
    """A page, and all that it did which it must not."""

    page: Any  # Any: of a library that may not be installed
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def value(self, expression: str) -> Any:  # Any: a JSON value
        """What a JavaScript expression is."""
        return self.page.evaluate(expression)

    def settled(self, expression: str) -> None:
        """Wait until a JavaScript expression holds.

        The page lets nobody evaluate texts, so it is asked from here, again and again.
        """
        until_s = time.monotonic() + 10
        while not self.value(expression):
            assert time.monotonic() < until_s, expression
            self.page.wait_for_timeout(30)


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def episodes() -> tuple[Episode, ...]:
    """Two short recordings, one of them with a hostile name, and one of 25 minutes."""
    lengths = {"train": (700, 515, 640), "validation": (900, 700, 19_000)}
    found = [
        Episode(f"{split}, part {i}", split, frames, some_laughs(7 * len(split) + i, frames))
        for split, counts in lengths.items()
        for i, frames in enumerate(counts)
    ]
    # A laugh that nobody would find: its features say nothing.
    hidden = laugh(1300.0, 1301.0, SPEAKERS[0])
    last = found[-1]
    return (*found[:-1], Episode(last.name, last.split, last.num_frames, [*last.events, hidden]))


@pytest.fixture(scope="module")
def page_path(episodes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    named = [
        Episode(f"{item.name} {HOSTILE}" if item.num_frames == 700 else item.name, item.split,
                item.num_frames, item.events)
        for item in episodes
    ]  # fmt: skip
    heard = [Episode(item.name, item.split, item.num_frames, list(item.events)[:-1])
             if item.num_frames == 19_000 else item for item in named]  # fmt: skip
    store = write_store(
        folder / "store", named, Planted(tuple(heard), strength=3.0), dim=DIM, block_frames=32,
        shard_frames=256,
    )  # fmt: skip
    config = config_for(store / "shards", folder / "run", epochs=8)
    train(config)

    def clips(recording: str, spans: Sequence[tuple[int, int]]) -> list[Clip]:
        found = []
        for start, end in spans:
            seconds = np.arange(round((end - start) / 1e6 * RATE)) / RATE
            sound = 0.2 * np.sin(2 * np.pi * 330 * seconds).astype(np.float32)
            found.append(Clip(start, end, MEDIA_TYPE, encode_mp3(sound)))
        return found

    report = write_report(config.out, device="cpu", clips=clips, bootstrap=200, null=20)
    return report.path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    flags = ["--autoplay-policy=no-user-gesture-required"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, page_path) -> Iterator[Open]:
    contexts = []

    def open_page(width: int = 1280, height: int = 900, **how: Any) -> Opened:
        screen = {"width": width, "height": height}
        context = browser.new_context(viewport=screen, reduced_motion="reduce", **how)
        contexts.append(context)
        context.set_offline(True)
        opened = Opened(context.new_page())
        page = opened.page

        def dismiss(dialog: Any) -> None:
            opened.dialogs.append(dialog.message)
            dialog.dismiss()

        page.on("console", lambda told: opened.errors.append(told.text)
                if told.type in ("error", "warning") else None)  # fmt: skip
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("dialog", dismiss)
        page.goto(page_path.as_uri())
        opened.settled(
            "typeof laughstore !== 'undefined' && laughstore.timeline?.plot?.data?.length > 0"
        )
        return opened

    yield open_page
    for context in contexts:
        context.close()


def test_it_opens_from_disk_without_errors_requests_or_strange_scripts(open_page, page_path):
    opened = open_page()
    charts = opened.value("Object.keys(laughstore.data.charts).length")
    assert charts == 6
    assert opened.page.locator("[data-chart] .main-svg .scatterlayer").count() >= charts
    assert opened.page.locator("img, iframe, object, embed").count() == 0
    names = opened.value("laughstore.data.timelines.map((item) => item.name)")
    shown = opened.page.locator("#by-recording tbody td:first-child").all_inner_texts()
    assert sorted(shown) == sorted(names)
    assert any(HOSTILE.split()[-2] in name and "<script>" in name for name in shown)
    # A page that a hostile name has changed would still hold what is asked of it: it is cast out.
    refused = opened.page.evaluate(
        "() => { const tag = document.createElement('script'); tag.textContent = 'window.hit = 1';"
        " document.body.append(tag); return window.hit; }"
    )
    assert refused is None
    assert [text for text in opened.errors if "Content Security Policy" not in text] == []
    assert len(opened.errors) == 1
    assert opened.requests == [page_path.as_uri()]
    assert opened.dialogs == []
    assert opened.page.title() == "run: validation"


def test_tables_are_sorted_by_any_column_and_tell_it(open_page):
    opened = open_page()
    table = opened.page.locator("#by-recording")
    headers = table.locator("thead th")

    def column(number: int) -> list[str]:
        return table.locator(f"tbody td:nth-child({number + 1})").evaluate_all(
            "cells => cells.map((cell) => cell.dataset.order)"
        )

    assert headers.nth(2).get_attribute("aria-sort") == "descending"
    for number in range(1, headers.count()):
        headers.nth(number).locator("button").click()
        assert headers.nth(number).get_attribute("aria-sort") in ("descending", "ascending")
        order = headers.nth(number).get_attribute("aria-sort")
        values = [float(item) for item in column(number) if item != ""]
        assert values == sorted(values, reverse=order == "descending")
        headers.nth(number).locator("button").click()
        assert headers.nth(number).get_attribute("aria-sort") != order
        again = [float(item) for item in column(number) if item != ""]
        assert again == sorted(values, reverse=order != "descending")
        told = [headers.nth(i).get_attribute("aria-sort") for i in range(headers.count())]
        assert told.count("none") == headers.count() - 1
    headers.nth(0).locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert headers.nth(0).get_attribute("aria-sort") == "ascending"
    assert opened.errors == []


def test_a_long_line_is_thinned_without_losing_a_peak(open_page):
    opened = open_page()
    rng = np.random.default_rng(0)
    values = rng.random(90_000)
    values[[77, 40_001, 89_999]] = [3.0, -2.0, 4.0]
    found = opened.page.evaluate(
        "([values, columns]) => laughstore.thinned([{start: 5, values}], 0, 7210, columns, 0.08)",
        [values.tolist(), 600],
    )
    x, y = np.array(found["x"]), np.array(found["y"])
    assert len(x) <= 2 * 602 + 1
    assert (np.diff(x) > 0).all()
    assert np.array_equal(y[:-1], values[np.rint(x[:-1] / 0.08).astype(int) - 5])
    per_column = (np.rint(x[:-1] / 0.08).astype(int)) // (90_125 // 600)
    for column in range(0, 600, 7):
        rows = np.arange(90_000)[(np.arange(5, 90_005) // (90_125 // 600)) == column]
        drawn = y[:-1][per_column == column]
        assert {drawn.min(), drawn.max()} == {values[rows].min(), values[rows].max()}
    near = opened.page.evaluate(
        "(values) => laughstore.thinned([{start: 0, values}], 8, 16, 600, 0.08)",
        values[:400].tolist(),
    )
    assert near["y"][:-1] == values[100:200].tolist()


def test_zooming_shows_every_row_and_going_back_shows_all(open_page):
    opened = open_page()
    number = opened.value("laughstore.data.timelines.findIndex((item) => item.end > 1000)")
    opened.page.locator("#recording").select_option(str(number))
    view = "[laughstore.timeline.from, laughstore.timeline.to]"
    drawn = "laughstore.timeline.plot.layout.xaxis.range"
    opened.settled(f"Math.abs({drawn}[1] - {drawn}[0] - 1520) < 1")
    points = opened.value("Math.max(...laughstore.timeline.plot.data.map((item) => item.x.length))")
    assert points < 10_000
    # By the wheel, around where the pointer is.
    opened.page.evaluate("document.getElementById('timeline').scrollIntoView()")
    box = opened.page.locator("#plot").bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 90)
    for _ in range(3):
        opened.page.mouse.wheel(0, -240)
    opened.settled(f"{drawn}[1] - {drawn}[0] < 1400")
    for _ in range(8):
        opened.page.locator("#closer").click()
    opened.settled(f"{drawn}[1] - {drawn}[0] < 6")
    start, end = opened.value(view)
    line = opened.value("laughstore.timeline.plot.data.at(-1)")
    steps = np.diff(np.array(line["x"], float))
    assert steps == pytest.approx(np.full(len(steps), 0.08))
    assert line["x"][0] <= start
    assert line["x"][-1] >= end
    # By dragging it is moved.
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 90)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] / 2 - 200, box["y"] + 90, steps=4)
    opened.page.mouse.up()
    opened.settled(f"{drawn}[0] > {start} + 0.2")
    opened.page.locator("#whole").click()
    opened.settled(f"Math.abs({drawn}[1] - {drawn}[0] - 1520) < 1")
    assert opened.errors == []


@pytest.mark.parametrize("kind", ["false", "miss"])
def test_the_worst_are_a_click_away_from_their_place(open_page, kind):
    opened = open_page()
    link = opened.page.locator(f".spots.{kind} a").first
    link.click()
    number = int(opened.page.url.rpartition("-")[2])
    spot = opened.value(f"laughstore.data.spots[{number}]")
    assert spot["kind"] == {"false": "false alarm", "miss": "miss"}[kind]
    opened.settled(f"laughstore.timeline.plot.layout.shapes[0]?.x0 <= {spot['start']}")
    start, end = opened.value("laughstore.timeline.plot.layout.xaxis.range")
    assert start <= spot["start"] < spot["end"] <= end
    assert end - start < 60
    assert opened.page.locator("#recording").input_value() == str(spot["timeline"])
    assert opened.page.locator("#plot").is_visible()
    assert 0 <= opened.page.locator("#timeline").bounding_box()["y"] < 450
    assert opened.page.locator("#spot-text").inner_text().startswith(spot["kind"])
    # What is drawn there says the same.
    stream = f"laughstore.data.timelines[{spot['timeline']}].streams[{spot['stream']}]"
    stretches = opened.value(f"{stream}.{'predicted' if kind == 'false' else 'awaited'}")
    assert [item[3] for item in stretches if item[:2] == [spot["start"], spot["end"]]] == [0]
    # A second click on the same link leads there again.
    opened.page.locator("#whole").click()
    opened.settled("laughstore.timeline.plot.layout.xaxis.range[1] > 50")
    link.click()
    opened.settled(f"laughstore.timeline.plot.layout.xaxis.range[1] == {end}")
    opened.page.locator("#after").click()
    opened.settled("laughstore.timeline.spot !== null")
    assert opened.errors == []


def test_what_is_heard_and_the_cursor_go_together(open_page):
    opened = open_page()
    opened.page.locator(".spots.false a").first.click()
    before = opened.value("laughstore.timeline.cursor")
    opened.page.locator("#play").click()
    opened.settled("laughstore.timeline.player.audio.currentTime > 0")
    opened.settled(f"laughstore.timeline.cursor > {before} + 0.6")
    told = opened.value(
        "(() => { const t = laughstore.timeline; t.player.stop();"
        " return [t.cursor, t.player.time, parseFloat(t.cursorLine.style.left), t.from, t.to,"
        " t.width, document.getElementById('clock').textContent]; })()"
    )
    cursor, heard, left, start, end, width, clock = told
    clip = opened.value("[laughstore.timeline.player.clip].map((c) => c.end - c.start)[0]")
    length = opened.value("laughstore.timeline.player.audio.duration")
    assert length == pytest.approx(clip, abs=0.03)
    assert cursor == pytest.approx(heard, abs=0.1)
    assert left == pytest.approx(46 + (cursor - start) / (end - start) * width, abs=1)
    assert clock == opened.value(f"laughstore.clock({cursor})")
    opened.settled("!laughstore.timeline.player.playing")
    # A click on the timeline is a place in the sound.
    box = opened.page.locator("#canvas").bounding_box()
    opened.page.mouse.click(box["x"] + 46 + 0.6 * width, box["y"] + 80)
    wanted = start + 0.6 * (end - start)
    opened.settled(f"Math.abs(laughstore.timeline.player.time - {wanted}) < 0.05")
    assert opened.value("laughstore.timeline.cursor") == pytest.approx(wanted, abs=0.05)
    # Where there is no sound it says so.
    number = opened.value("laughstore.data.timelines.findIndex((item) => item.end > 1000)")
    silent = opened.value(f"laughstore.data.timelines[{number}].sounds.length")
    assert silent >= 1
    opened.page.locator("#recording").select_option(str(number))
    moment = opened.value(
        f"(() => {{ laughstore.timeline.setView(0, 1520); let t = 0; const clips ="
        f" laughstore.data.timelines[{number}].sounds;"
        " while (clips.some((c) => t >= c.start && t < c.end)) t += 1; return t; })()"
    )
    assert opened.value(f"laughstore.timeline.player.seek({moment})") is False
    assert [text for text in opened.errors if "404" not in text] == []
    assert [url for url in opened.requests if not url.startswith(("file:", "blob:"))] == []


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_is_wider_than_the_screen(open_page, width, tmp_path):
    phone = {"device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    opened = open_page(width, 812, **(phone if width == 375 else {}))
    assert opened.value("document.documentElement.scrollWidth") <= width
    opened.page.locator(".spots.miss a").first.click()
    opened.settled("laughstore.timeline.spot !== null")
    assert opened.value("document.documentElement.scrollWidth") <= width
    for name in ("p", "td", "dd", "li", "button", "figcaption"):
        sizes = opened.page.locator(name).evaluate_all(
            "items => items.filter((item) => item.offsetParent).map((item) =>"
            " parseFloat(getComputedStyle(item).fontSize))"
        )
        assert min(sizes) >= 12
    path = tmp_path / "page.png"
    opened.page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 50_000
    assert opened.errors == []
