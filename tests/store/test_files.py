"""Files are whole or absent; sealed files tell when they were altered."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laughstore.cli.main import one_line
from laughstore.errors import CorruptData
from laughstore.files import create_atomic, link_or_copy, make_dirs, write_atomic
from laughstore.folders import LocalFolder
from laughstore.sealed import canonical_json, read_small, seal, unseal

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
objects = st.dictionaries(st.text().filter(lambda key: key != "sha256"), json_values, min_size=1)


@given(objects)
def test_a_sealed_object_comes_back(value):
    back, digest = unseal(seal(value), where="x")
    assert canonical_json(back) == canonical_json(value)
    assert len(digest) == 64


@given(objects, st.data())
def test_any_flipped_bit_or_cut_breaks_the_seal(value, data):
    sealed = seal(value)
    position = data.draw(st.integers(0, len(sealed) - 1))
    altered = bytearray(sealed)
    altered[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptData, match=r"^some\.json: "):
        unseal(bytes(altered), where="some.json")
    with pytest.raises(CorruptData):
        unseal(sealed[:position], where="x")


def test_a_file_is_replaced_in_one_step_and_leaves_no_temporary(tmp_path):
    path = tmp_path / "deep/er/file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [item.name for item in path.parent.iterdir()] == ["file"]


def test_a_link_is_one_inode_and_may_be_made_again(tmp_path):
    write_atomic(tmp_path / "source", b"bytes")
    for _ in range(2):
        assert link_or_copy(tmp_path / "source", tmp_path / "shards/name")
    assert (tmp_path / "shards/name").samefile(tmp_path / "source")
    assert [item.name for item in (tmp_path / "shards").iterdir()] == ["name"]


def test_where_links_cannot_be_made_the_bytes_are_copied(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_atomic(tmp_path / "source", b"bytes" * 1000)
    (tmp_path / "source").chmod(0o444)
    assert not link_or_copy(tmp_path / "source", tmp_path / "name")
    assert (tmp_path / "name").read_bytes() == b"bytes" * 1000
    assert (tmp_path / "name").stat().st_mode & 0o777 == 0o444
    # exFAT has neither links nor modes of files.
    monkeypatch.setattr(os, "fchmod", refuse)
    assert not link_or_copy(tmp_path / "source", tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == b"bytes" * 1000


def test_a_link_whose_answer_was_lost_is_one_and_the_source_is_not_emptied(tmp_path, monkeypatch):
    make = os.link

    def asked_twice(*names: Path, **options: bool) -> None:
        make(*names, **options)
        make(*names, **options)  # as a client of NFS does when no answer comes: it is taken

    monkeypatch.setattr(os, "link", asked_twice)
    write_atomic(tmp_path / "source", b"bytes" * 1000)
    assert link_or_copy(tmp_path / "source", tmp_path / "name")
    assert (tmp_path / "source").read_bytes() == b"bytes" * 1000
    assert (tmp_path / "name").samefile(tmp_path / "source")
    assert create_atomic(tmp_path / "new", b"mine")
    assert not create_atomic(tmp_path / "new", b"of another")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["name", "new", "source"]


def test_a_name_that_leads_nowhere_is_taken(tmp_path):
    (tmp_path / "new").symlink_to(tmp_path / "nowhere")
    assert not create_atomic(tmp_path / "new", b"mine")
    assert [item.name for item in tmp_path.iterdir()] == ["new"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomic(tmp_path / "file", b"old")
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from laughstore.files import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_atomic(Path(sys.argv[1]), bytes(5000))\n"
        "except OSError: sys.exit(7)\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False)
    assert done.returncode == 7
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_folders_are_made_with_their_parents(tmp_path):
    make_dirs(tmp_path / "a/b/c")
    make_dirs(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c").is_dir()


@pytest.mark.parametrize("limited", ["write_atomic(path, bytes(9999))", "write_shard(path)"])
def test_a_write_that_fails_names_the_file(tmp_path, limited):
    path = tmp_path / "file"
    code = f"""
import resource, sys
from pathlib import Path
import numpy as np
from laughstore.cli.main import one_line
from laughstore.files import write_atomic
from laughstore.geometry import ShardGeometry
from laughstore.shard import ShardWriter

def write_shard(path):
    with ShardWriter(path, ShardGeometry(64), "none") as writer:
        writer.write_block("a", np.zeros((9, 64), np.uint16), {{}})
        writer.commit()

path = Path({str(path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    {limited}
except OSError as error:
    print(one_line(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"[Errno {errno.EFBIG}] File too large: '{path}'" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails_while_a_store_is_read_is_told_with_the_file(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    write_atomic(tmp_path / "a.json", b"{}")
    monkeypatch.setattr(os, "pread", refuse)
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_small(LocalFolder(tmp_path), "a.json")
    told = f"{tmp_path}/a.json: input/output error, which is of the disk"
    assert one_line(caught.value).startswith(told)
    # What nobody has given a name has its advice, too.
    assert one_line(OSError(errno.EIO, "Input/output error")).endswith("when that is well")
