"""What progress looks like where there is no terminal: one line every 30 seconds."""

import itertools
import time

import pytest

from laughstore.cli.progress import TerminalProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be moved by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_frames_of_audio_are_shown_as_hours_with_the_real_time_factor(clock, capsys):
    progress = TerminalProgress()
    progress.begin("extract", 2 * 45_000, "frame")
    for _ in range(4):
        clock[0] += 20
        progress.advance(11_250)  # a quarter of an hour
    assert capsys.readouterr().err.splitlines() == [
        "extract: 0.50 of 2.00 h of audio, 45.0x real time, 0:00:40, about 0:02:00 left",
        "extract: 1.00 of 2.00 h of audio, 45.0x real time, 0:01:20, about 0:01:20 left",
    ]
    clock[0] += 40
    progress.advance(-22_500)
    assert "0.50 of 2.00 h of audio, 15.0x real time, 0:02:00, about 0:06:00 left" in (
        capsys.readouterr().err
    )


def test_other_steps_are_counted_with_their_note(clock, capsys):
    progress = TerminalProgress()
    progress.begin("verify", 10, "file")
    for number in itertools.count():
        clock[0] += 10
        progress.advance(1, f"file {number}")
        if number == 2:
            break
    assert capsys.readouterr().err == ("verify: 3 of 10 files, 30 s, about 70 s left (file 2)\n")


def test_outside_of_a_task_nothing_is_counted(clock, capsys):
    progress = TerminalProgress()
    progress.advance(5)
    progress.begin("extract", 10, "frame")
    progress.end()
    clock[0] += 60
    progress.advance(5)
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing(clock, capsys):
    progress = TerminalProgress(quiet=True)
    progress.begin("extract", 10, "frame")
    clock[0] += 60
    progress.advance(5)
    progress.message("a line")
    assert capsys.readouterr().err == ""
