"""Folders that are whole or absent, and what killed processes leave of them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from laughstore.new_folder import _machine, new_folder, write_folder

MAKER = """
import sys, time
from pathlib import Path
from laughstore.new_folder import new_folder
with new_folder(Path(sys.argv[1])) as building:
    (building / "part").write_text("half")
    print("here", flush=True)
    time.sleep(60)
"""


def fill(out: Path, source: Path) -> None:
    """Make a folder with a part, and with a copy of a file."""
    with new_folder(out) as building:
        (building / "part").write_text("ours")
        (building / "copy").write_bytes(source.read_bytes())


def begin(out: Path) -> subprocess.Popen[str]:
    """Start a process that is amid making a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(FileNotFoundError, match="absent"):
        fill(out, tmp_path / "absent")
    assert list(out.parent.iterdir()) == []
    with new_folder(out) as building:
        (building / "part").write_text("whole")
        assert not out.exists()
    assert [item.name for item in out.parent.iterdir()] == ["out"]
    assert (out / "part").read_text() == "whole"


def test_what_a_kill_left_is_removed_and_what_is_being_made_is_not(tmp_path, caplog):
    out = tmp_path / "out"
    first, second = begin(out), begin(out)
    try:
        (tmp_path / "out.partial-mine").mkdir()  # nobody here gives such names
        ours = tmp_path / f"other.partial-{_machine()}89abcdef"
        ours.mkdir()
        theirs = tmp_path / f"other.partial-{'0000' if _machine() != '0000' else '1111'}89abcdef"
        theirs.mkdir()
        before = {item.name for item in tmp_path.iterdir()}
        end(first)
        with new_folder(out) as building:
            here = {item.name for item in tmp_path.iterdir()} - {building.name}
        (gone,) = before - here
        assert here < before
        assert f"{tmp_path / gone} was left by a process that was killed: removed" in caplog.text
        assert len(caplog.records) == 1
    finally:
        end(first)
        end(second)
    with new_folder(tmp_path / "other"):
        pass
    assert not ours.exists()
    assert theirs.exists()  # another machine's: nothing tells whether it is still at it


def test_a_folder_that_was_filled_meanwhile_is_not_touched(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "part").write_text("theirs")
    with pytest.raises(OSError, match="not empty"):
        fill(out, Path(__file__))
    assert [item.name for item in tmp_path.iterdir()] == ["out"]
    assert (out / "part").read_text() == "theirs"


def test_a_folder_of_files_is_whole_or_absent(tmp_path):
    files = {"a": b"1", "b/c/d": b"2", "b/e": b""}
    write_folder(tmp_path / "new/out", files)
    found = sorted(path for path in (tmp_path / "new/out").rglob("*") if path.is_file())
    told = {str(path.relative_to(tmp_path / "new/out")): path.read_bytes() for path in found}
    assert told == files
    with pytest.raises(OSError, match="other"):
        write_folder(tmp_path / "new/other", {"b": b"", "b/c": b""})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
