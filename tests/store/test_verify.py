"""`verify` names the file of every fault: cut, swapped, missing, stale, replaced, not readable."""

import errno
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from laughstore import ConfigError, IncompleteStore, NotFound, layout
from laughstore.commit import members, publish
from laughstore.folders import LocalFolder
from laughstore.index_file import read_index
from laughstore.integrity import hashing_pass
from laughstore.integrity.verify import verify
from laughstore.manifest import read_manifest

from .whole_store import (
    KINDS,
    TAR,
    bad_files,
    copy_store,
    copy_without_links,
    file_of_kind,
    files_of,
    names_of_tar,
    only_fault,
    other_content,
    write_whole_store,
)

NOT_NEEDED = ("left out", "statistics", "older generation")
"""Kinds of files that a store may be without."""


@pytest.fixture(scope="module", params=["none", "zstd"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of each codec, which tests must not change."""
    path = tmp_path_factory.mktemp(f"verify-{request.param}") / "store"
    return write_whole_store(path, request.param)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests must not change."""
    return write_whole_store(tmp_path_factory.mktemp("verify") / "store")


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A store that the test may damage."""
    return copy_store(sound, tmp_path / "store")


def test_a_sound_store_has_no_faults(either):
    report = verify(either)
    assert report.faults == ()
    assert report.notes == ()
    assert report.bad_blocks == ()
    assert report.generations == (3, 2, 1)
    assert (report.num_recordings, report.num_shards, report.num_blocks) == (4, 9, 13)
    num_bytes = sum({p.stat().st_ino: p.stat().st_size for p in either.rglob("*.tar")}.values())
    assert report.num_bytes > num_bytes
    quick = verify(either, quick=True)
    assert quick.faults == ()
    assert quick.num_bytes < num_bytes / 2


def test_shards_alone_are_verified_alone(either, tmp_path):
    alone = copy_store(either / "shards", tmp_path / "alone")
    for shards in (either / "shards", alone):
        report = verify(shards)
        assert report.faults == ()
        assert report.notes == ()
        assert report.shards_alone
        assert report.num_shards == 9
    victim = alone / "train-000001.tar"
    with other_content(victim, victim.read_bytes()[:-1]):
        assert "cut" in only_fault(verify(alone), "train-000001.tar")


def test_both_names_are_read_when_they_are_two_files(sound, tmp_path):
    store = copy_without_links(sound, tmp_path / "store")
    assert verify(store).faults == ()
    tar, chunk = names_of_tar(store)
    for path, other in ((chunk, tar), (tar, chunk)):
        data = bytearray((store / path).read_bytes())
        data[5000] ^= 1
        with other_content(store / path, bytes(data)):
            report = verify(store)
            said = only_fault(report, path)
            assert f"its other name is intact: link or copy {other} to {path}" in said
            assert len(report.bad_blocks) == (path == tar)
            assert report.faults[0].also is None


def test_a_fault_in_a_file_of_two_names_is_told_once_and_names_both(store):
    tar, chunk = names_of_tar(store)
    data = bytearray((store / chunk).read_bytes())
    data[5000] ^= 1
    with other_content(store / chunk, bytes(data)):
        report = verify(store)
        only_fault(report, tar)
        assert report.faults[0].also == chunk


def _boundaries(path: Path) -> list[int]:
    """Lengths around the beginnings and ends of all members of a tar."""
    with tarfile.open(path) as tar:
        places = [
            place
            for member in tar.getmembers()
            for place in (member.offset, member.offset_data, member.offset_data + member.size)
        ]
    size = path.stat().st_size
    lengths = {place + shift for place in places for shift in (-1, 0, 1)}
    return sorted(length for length in lengths if 0 <= length < size)


def test_every_kind_of_file_cut_short_is_found(store):
    for kind in KINDS:
        name = file_of_kind(store, kind)
        data = (store / name).read_bytes()
        for length in (len(data) // 2, len(data) - 1):
            with other_content(store / name, data[:length]):
                assert name in bad_files(verify(store)), f"{name} of {length} bytes"
        with other_content(store / name, data[:-1]):
            assert name in bad_files(verify(store, quick=True)), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_at_any_length_is_found(store, kind):
    name = file_of_kind(store, kind)
    data = (store / name).read_bytes()
    rng = np.random.default_rng(0)
    lengths = {*range(5), *range(len(data) - 5, len(data))}
    lengths |= set(rng.integers(0, len(data), 40).tolist())
    for length in lengths:
        with other_content(store / name, data[:length]):
            assert name in bad_files(verify(store)), length


def test_a_shard_cut_around_any_member_is_found(either, tmp_path):
    shards = copy_store(either / "shards", tmp_path / "shards")
    name = Path(TAR).name
    data = (shards / name).read_bytes()
    for length in _boundaries(shards / name):
        with other_content(shards / name, data[:length]):
            report = verify(shards)
        assert bad_files(report) == {name}
        assert any(f"cut: {length} of {len(data)} bytes" in str(item) for item in report.faults)


def test_a_cut_shard_names_the_blocks_that_are_gone(either, tmp_path):
    store = copy_store(either, tmp_path / "store")
    index = read_index(store / "shards")
    shard = next(item for item in index.shards if item.name == Path(TAR).name)
    blocks = slice(shard.first_block, shard.first_block + shard.num_blocks)
    sizes = index.block_bytes[blocks]
    ends = index.geometry.block_offsets(sizes) + sizes
    key = f"{shard.stream.recording_id}/{shard.stream.assignment}"
    for length in (shard.num_bytes * step // 7 for step in reversed(range(7))):
        os.truncate(store / TAR, length)
        report = verify(store)
        gone = [f"{key}/{number:06d}" for number, end in enumerate(ends) if end > length]
        assert list(report.bad_blocks) == gone
        assert TAR in bad_files(report)


def test_junk_at_the_end_of_every_kind_of_file_is_found(store):
    for kind in KINDS:
        name = file_of_kind(store, kind)
        data = (store / name).read_bytes()
        for junk in (b"\n", bytes(4096)):
            with other_content(store / name, data + junk):
                report = verify(store)
            assert name in bad_files(report), f"{len(junk)} bytes behind {name}"
            assert report.bad_blocks == ()


def test_every_zeroed_page_of_a_shard_is_found_where_it_is(either, tmp_path):
    shards = copy_store(either / "shards", tmp_path / "shards")
    name = Path(TAR).name
    for start, stop, data in _zeroed_pages(shards / name):
        with other_content(shards / name, data):
            report = verify(shards)
        assert bad_files(report) == {name}
        for fault in report.faults:
            assert fault.start is not None
            assert fault.stop is not None
            assert fault.start < stop
            assert fault.stop > start


@pytest.mark.slow
def test_every_zeroed_page_of_every_file_is_found(store):
    for name in files_of(store):
        for start, _, data in _zeroed_pages(store / name):
            with other_content(store / name, data):
                assert name in bad_files(verify(store)), f"page at {start}"


def _zeroed_pages(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(start, stop, content of the file with that page zeroed); pages of zeros are left out."""
    data = path.read_bytes()
    for start in range(0, len(data), 4096):
        stop = min(start + 4096, len(data))
        if any(data[start:stop]):
            yield start, stop, data[:start] + bytes(stop - start) + data[stop:]


def test_swapped_shards_are_told_as_such(store):
    a, b = TAR, "shards/train-000002.tar"
    assert (store / a).stat().st_size == (store / b).stat().st_size
    (store / a).rename(store / "spare")
    (store / b).rename(store / a)
    (store / "spare").rename(store / b)
    report = verify(store)
    assert [fault.path for fault in report.faults] == [a, b]
    assert f"holds the bytes of {b}" in str(report.faults[0])
    assert "its other name is intact" in str(report.faults[0])
    assert len(report.bad_blocks) == 4
    alone = verify(store / "shards")
    assert [fault.path for fault in alone.faults] == [Path(a).name, Path(b).name]


def test_a_missing_file_is_named(store):
    for kind in KINDS:
        name = file_of_kind(store, kind)
        with _moved(store / name, store.parent / "elsewhere"):
            report = verify(store)
        if kind in (*NOT_NEEDED, "quarantine"):  # which a killed commit has not written yet
            assert report.faults == ()
            continue
        assert f"{name}: is missing" in str(report.faults[0])
        assert bad_files(report) == {name}
        assert bool(report.bad_blocks) == (kind == "shard")


@contextmanager
def _moved(path: Path, target: Path) -> Iterator[None]:
    """A file stands elsewhere for a while; what stands in its place at the end is removed."""
    path.rename(target)
    try:
        yield
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        target.rename(path)


def test_missing_names_of_a_shard(store):
    tar, chunk = names_of_tar(store)
    data = (store / tar).read_bytes()
    (store / chunk).unlink()
    report = verify(store)
    assert f"link or copy {tar} to {chunk}" in only_fault(report, chunk)
    assert report.bad_blocks == ()
    (store / tar).rename(store / chunk)
    report = verify(store)
    assert f"link or copy {chunk} to {tar}" in only_fault(report, tar)
    assert len(report.bad_blocks) == 2
    (store / chunk).unlink()
    report = verify(store)
    assert [fault.path for fault in report.faults] == sorted([tar, chunk])
    assert "build recording 'a' into another store" in str(report.faults[-1])
    (store / tar).write_bytes(data)
    (store / chunk).write_bytes(data)
    assert verify(store).faults == ()


def test_a_shard_without_one_of_its_members_is_found(store):
    data = (store / TAR).read_bytes()
    for left_out in range(4):
        out = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(data)) as source,
            tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as target,
        ):
            for number, member in enumerate(source.getmembers()):
                if number != left_out:
                    target.addfile(member, source.extractfile(member))
        with other_content(store / TAR, out.getvalue()):
            report = verify(store)
        assert TAR in bad_files(report)
        assert report.bad_blocks


def test_a_symbolic_link_in_the_place_of_a_file_is_found_and_not_followed(store):
    for kind in KINDS:
        name, elsewhere = file_of_kind(store, kind), store.parent / "elsewhere"
        with _moved(store / name, elsewhere):
            (store / name).symlink_to(elsewhere)
            assert name in bad_files(verify(store)), name
            assert name in bad_files(verify(store, quick=True)), name


@pytest.mark.parametrize("folder", ["shards", "features.zarr", "units", "codes.zarr/train"])
def test_a_symbolic_link_in_the_place_of_a_folder_is_one_fault(store, folder, tmp_path):
    (store / folder).rename(tmp_path / "elsewhere")
    (store / folder).symlink_to(tmp_path / "elsewhere")
    report = verify(store)
    assert folder in bad_files(report)
    assert len(report.faults) <= 6


def test_a_folder_in_the_place_of_a_file_is_found(store):
    for kind in KINDS:
        name = file_of_kind(store, kind)
        with _moved(store / name, store.parent / "elsewhere"):
            (store / name).mkdir()
            report = verify(store)
        if kind in NOT_NEEDED:
            assert report.faults == ()
        else:
            assert name in bad_files(report), name


def test_a_pipe_in_the_place_of_a_file_does_not_hang(store):
    for name in (TAR, file_of_kind(store, "codes")):
        (store / name).unlink()
        os.mkfifo(store / name)
    report = verify(store)
    assert {TAR, file_of_kind(store, "codes")} <= bad_files(report)


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Root reads everything; give that up for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_files_and_folders_that_may_not_be_read_are_named(sound):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        store = copy_store(sound, Path(folder) / "store")
        verify(store)  # so that nothing has to be imported without rights
        _, chunk = names_of_tar(store)
        (store / TAR).chmod(0)
        (store / "units" / "b-3e23e816.json").chmod(0)
        (store / "annotations").chmod(0)
        try:
            with _as_nobody():
                report = verify(store)
        finally:
            (store / "annotations").chmod(0o755)
    bad = bad_files(report)
    assert {TAR, chunk, "units/b-3e23e816.json", "annotations"} <= bad
    assert "permission denied" in str(report.faults[-1])
    assert len(report.bad_blocks) == 2


def test_a_tar_that_nothing_names_is_a_fault(store):
    (store / "shards/train-000099.tar").write_bytes(b"x")
    said = only_fault(verify(store), "shards/train-000099.tar")
    assert "stock readers read every tar of this folder; move it away" in said
    assert bad_files(verify(store / "shards")) == {"train-000099.tar"}


def test_leftovers_and_strange_files_are_notes(store):
    (store / "shards/train-000099.tar.partial-0123").write_bytes(b"x")
    (store / "NOTES.txt").write_text("mine")
    report = verify(store)
    assert report.faults == ()
    assert "`laughstore gc` removes them" in report.notes[0]
    assert "NOTES.txt" in report.notes[1]


class _FarFolder(LocalFolder):
    """A folder that is read as a remote one: by ranges, and cannot be listed."""

    local = None  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, root: Path, *, lists: bool = False) -> None:
        super().__init__(root)
        self._lists = lists
        self.asked: list[str] = []

    def child(self, name: str) -> "_FarFolder":
        return _FarFolder(self._root / name)

    def exists(self, path: str) -> bool:
        self.asked.append(path)
        return super().exists(path)

    def list_names(self, path: str) -> list[str] | None:
        return super().list_names(path) if self._lists else None


@pytest.mark.parametrize("lists", [True, False])
def test_generations_of_a_remote_store_are_found_in_few_questions(store, lists):
    far = _FarFolder(store, lists=lists)
    assert verify(far).generations == (3, 2, 1)
    assert len(far.asked) <= 5
    # A manifest may state any number.
    manifest = replace(read_manifest(store), generation=999_999, index=layout.index(999_999))
    (store / "store.json").write_bytes(manifest.to_bytes())
    far = _FarFolder(store, lists=lists)
    report = verify(far)
    assert len(far.asked) < 30
    assert report.generations == ((999_999, 3, 2, 1) if lists else (999_999,))
    assert bad_files(report)


def test_odd_files_beside_the_current_index_of_shards_are_faults(store):
    shards, name = store / "shards", "index-000003.json"
    elsewhere = store / "elsewhere.json"
    (shards / name).rename(elsewhere)
    (shards / name).symlink_to(elsewhere)
    assert "symbolic link" in only_fault(verify(shards), name)
    (shards / name).unlink()
    (shards / name).touch()
    os.truncate(shards / name, 3 << 30)
    said = only_fault(verify(shards), name)
    assert "3221225472 bytes" in said, "its size was looked at, and nothing was read"
    assert "copy index.json over it" in said
    (shards / name).write_bytes((shards / "index-000001.json").read_bytes())
    assert "is not what index.json is" in only_fault(verify(shards), name)


def test_the_list_of_a_killed_commit_is_a_note_and_any_other_a_fault(store):
    path = store / layout.QUARANTINE_JSON
    whole = path.read_bytes()
    path.unlink()
    report = verify(store)
    assert report.faults == ()
    assert "a commit was interrupted" in report.notes[0]
    for position in range(0, len(whole), 7):
        data = bytearray(whole)
        data[position] ^= 1
        path.write_bytes(data)
        only_fault(verify(store), layout.QUARANTINE_JSON)
    # The list of the generation before, where now nothing is left out.
    path.write_bytes(whole)
    third = read_manifest(store)
    publish(
        store,
        generation=4,
        spec=third.spec,
        members=members(store, third),
        quarantined=[],
        num_plans=1,
        before=third,
    )
    assert not path.exists()
    assert verify(store).faults == verify(store).notes == ()
    path.write_bytes(whole)
    assert verify(store).faults == ()
    path.write_bytes(whole[:-1])
    assert "delete it" in only_fault(verify(store), layout.QUARANTINE_JSON)


def test_a_remote_store_is_verified_through_reads(store):
    chunk = names_of_tar(store)[1]
    (store / chunk).unlink()  # arrays of a remote store are served from the shards
    assert verify(_FarFolder(store)).faults == ()
    assert verify(_FarFolder(store / "shards")).faults == ()
    data = bytearray((store / TAR).read_bytes())
    data[5000] ^= 1
    (store / TAR).write_bytes(data)
    (store / "codes.zarr/zarr.json").unlink()
    report = verify(_FarFolder(store))
    assert [fault.path for fault in report.faults] == ["codes.zarr/zarr.json", TAR]
    assert len(report.bad_blocks) == 1
    assert len(verify(_FarFolder(store / "shards")).bad_blocks) == 1


def test_a_disk_that_fails_under_a_shard_names_the_blocks(store, monkeypatch):
    """The kernel's EIO, which no test can order: the calls that meet it raise it."""
    broken = (store / TAR).stat().st_ino
    geometry = read_index(store / "shards").geometry
    bad = range(geometry.data_offset(1), geometry.data_offset(1) + 4096)
    readv, pread = os.readv, os.pread

    def failing_readv(descriptor, buffers):
        if os.fstat(descriptor).st_ino == broken:
            raise OSError(errno.EIO, "Input/output error")
        return readv(descriptor, buffers)

    def failing_pread(descriptor, length, offset):
        if os.fstat(descriptor).st_ino == broken and offset < bad.stop and offset + length > bad[0]:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "readv", failing_readv)
    monkeypatch.setattr(os, "pread", failing_pread)
    report = verify(store)
    assert "Input/output error" in only_fault(report, TAR)
    assert report.bad_blocks == ("a-ca978112/speaker-00--speaker-01/000001",)


class _Told:
    """Remembers what it is told, and stops the work after some steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.total = self.done = self.steps = 0
        self.ended = False
        self._stop_after = stop_after

    def begin(self, task: str, total: int, unit: str) -> None:
        assert unit == "B"
        self.total = total

    def advance(self, amount: int, note: str = "") -> None:
        self.done += amount
        self.steps += 1
        if self.steps == self._stop_after:
            raise KeyboardInterrupt

    def message(self, text: str) -> None: ...

    def end(self) -> None:
        self.ended = True


def test_any_number_of_threads_finds_the_same(store, monkeypatch):
    monkeypatch.setattr(hashing_pass, "_ALONE_BYTES", 0)
    monkeypatch.setattr(hashing_pass, "_QUEUED", 2)
    os.truncate(store / TAR, 5000)
    (store / file_of_kind(store, "codes")).unlink()
    reports = []
    for jobs in (1, 2, 5):
        told = _Told()
        reports.append(verify(store, jobs=jobs, progress=told))
        assert told.ended
        assert told.done == told.total > 0
    assert reports[0].num_bytes == reports[1].num_bytes == reports[2].num_bytes
    assert reports[0].faults == reports[1].faults == reports[2].faults
    with pytest.raises(ConfigError, match="jobs is 0"):
        verify(store, jobs=0)


@pytest.mark.parametrize("jobs", [1, 3])
def test_stopping_ends_all_threads(sound, monkeypatch, jobs):
    monkeypatch.setattr(hashing_pass, "_ALONE_BYTES", 0)
    told = _Told(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        verify(sound, jobs=jobs, progress=told)
    assert told.ended


def test_what_is_no_store_is_an_error(tmp_path, sound, store):
    with pytest.raises(NotFound, match="does not exist"):
        verify(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(IncompleteStore, match=r"holds no store\.json"):
        verify(tmp_path / "empty")
    with pytest.raises(NotFound, match="is a file"):
        verify(sound / "store.json")
    for name in ("store.json", "shards/index.json"):
        (store / name).unlink()
    with pytest.raises(IncompleteStore, match="has not been finished"):
        verify(store)
