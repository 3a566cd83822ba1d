"""`laughstore verify`: lines, JSON, lists, exit codes, URLs, Ctrl-C."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from laughstore.cli.main import main
from laughstore.integrity.verify import verify
from laughstore.manifest import FileRecord, read_manifest

from .loopback import FileServer
from .whole_store import TAR, copy_store, files_of, write_manifest, write_whole_store


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests must not change."""
    return write_whole_store(tmp_path_factory.mktemp("verify") / "store")


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A store that the test may damage."""
    return copy_store(sound, tmp_path / "store")


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["verify", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_says_that_all_is_well(sound, capsys, tmp_path):
    listed = tmp_path / "deep/list.txt"
    code, out, err = _run(capsys, sound, "--bad-blocks", listed)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "no faults"
    assert "generation 3, 2, 1; 4 recordings, 9 shards, 13 blocks" in out
    assert listed.read_bytes() == b""
    code, out, _ = _run(capsys, sound, "--quick", "--jobs", 1)
    assert code == 0
    assert "without --quick reads the features too" in out
    code, out, _ = _run(capsys, sound / "shards")
    assert code == 0
    assert "shards folder alone" in out


def test_the_command_tells_faults_in_lines_in_json_and_in_a_list(store, capsys, tmp_path):
    (store / "shards/test-000000.tar").unlink()
    data = bytearray((store / TAR).read_bytes())
    data[5000] ^= 1
    (store / TAR).write_bytes(data)
    listed = tmp_path / "list.txt"
    code, out, err = _run(capsys, store, "--bad-blocks", listed)
    assert (code, err) == (3, "")
    lines = out.splitlines()
    assert lines[0] == "2 faults:"
    assert lines[1].startswith("  shards/test-000000.tar: is missing; its other name is intact")
    key = "a-ca978112/speaker-00--speaker-01/000000"
    assert lines[2].startswith(f"  {TAR}, sample {key}, bytes 2048 to 10239: the rows' crc32c is")
    assert "2 faults in 2 files; not readable as written from shards/: 2 blocks" in out
    assert lines[-1].startswith("next: ")
    assert listed.read_text().splitlines() == ["d-18ac3e73/only-one--silence/000000", key]
    code, out, _ = _run(capsys, store, "--json")
    report = json.loads(out)
    assert code == 3
    assert report["num_faults"] == 2
    assert report["faults"][1]["sample"] == key
    assert (report["faults"][1]["start"], report["faults"][1]["stop"]) == (2048, 10240)
    assert report["bad_blocks"] == listed.read_text().splitlines()
    assert report["num_bytes"] > 0
    assert report["seconds"] > 0


def test_the_command_prints_twenty_faults_and_counts_the_rest(store, capsys):
    for name in files_of(store)[:40]:
        (store / name).unlink()
    code, out, _ = _run(capsys, store)
    assert code == 3
    assert "... and 20 more" in out


def test_the_command_refuses_what_it_cannot_do(sound, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, expected, said in (
        ((tmp_path / "no store",), 1, "does not exist"),
        ((tmp_path / "empty",), 1, "holds no store.json"),
        ((sound, "--jobs", "0"), 2, "jobs is 0"),
        ((sound, "--jobs", "two"), 2, "two"),
        ((sound, "--bad-blocks", tmp_path), 2, "is no file"),
        ((sound, "--bad-blocks", "/dev/null"), 2, "is no file"),
        ((), 2, "store"),
        (("ftp://host/store",), 2, "ftp"),
    ):
        code, out, err = _run(capsys, *arguments)
        assert (code, out) == (expected, ""), arguments
        assert said in err.lower()
        assert err.count("\n") == 1
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_ctrl_c_ends_the_command_at_once(store):
    """The manifest names a file that takes a minute to read."""
    large = store / "annotations/large.json"
    with large.open("wb") as file:
        file.truncate(60 << 30)
    manifest = read_manifest(store)
    record = asdict(FileRecord("annotations/large.json", 60 << 30, "0" * 64))
    write_manifest(store, replace(manifest, files_json=[*manifest.files_json, record]))
    command = [sys.executable, "-m", "laughstore", "verify", str(store), "--jobs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_it_reads(process, large)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (130, "", "laughstore: interrupted\n")


def _wait_until_it_reads(process: subprocess.Popen[str], path: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, process.communicate()
        try:
            files = list(Path(f"/proc/{process.pid}/fd").iterdir())
            if any(item.readlink() == path for item in files):
                return
        except FileNotFoundError:  # closed while we looked
            pass
        time.sleep(0.1)
    raise AssertionError("the command did not begin to read")


def test_a_store_on_a_web_server_is_verified(sound, capsys, tmp_path):
    store = copy_store(sound, tmp_path / "store")
    (store / "quarantine.json").unlink()  # nothing gives its hash: `push` does not send it
    with FileServer(tmp_path, tag=True) as server:
        url = f"{server.url}/store"
        assert verify(url).faults == ()
        assert verify(f"{url}/shards", jobs=2).faults == ()
        os.truncate(store / TAR, 5000)
        code, out, _ = _run(capsys, url, "--json")
    assert code == 3
    assert {fault["path"] for fault in json.loads(out)["faults"]} >= {TAR}
