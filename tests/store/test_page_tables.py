import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from laughstore import open_shards
from laughstore.geometry import HUGE_PAGE_BYTES
from laughstore.reading import page_tables
from laughstore.reading.mapping import MappedFiles
from laughstore.reading.page_tables import are_mapped
from laughstore.reading.rows import open_rows
from tests.stores import Episode, random_features, write_store

ONE_PAGE = np.ones(2 * mmap.PAGESIZE, np.uint8)
TELLS = are_mapped([ONE_PAGE.ctypes.data], mmap.PAGESIZE)
needs_answers = pytest.mark.skipif(
    not TELLS, reason="this kernel does not tell which pages are mapped"
)


def one_file(folder: Path) -> tuple[Path, MappedFiles]:
    path = folder / "file"
    path.write_bytes(bytes(64 << 10))
    return path, MappedFiles([(str(path), 64 << 10)], 4096)


def test_pages_that_are_still_mapped_are_asked_for_once(tmp_path, monkeypatch):
    write_store(tmp_path / "s", [Episode("a", num_frames=300)], random_features(64), dim=64)
    index = open_shards(tmp_path / "s")
    asked: list[int] = []
    populate = MappedFiles.populate

    def counted(self, start, num_bytes):
        asked.append(start)
        populate(self, start, num_bytes)

    monkeypatch.setattr(MappedFiles, "populate", counted)
    with open_rows(index, "train", "map") as rows:
        for _ in range(3):
            rows.prepare_once(np.array([0, 1]))
        times = 1 if TELLS else 3
        assert len(asked) == 2 * times
        # As older kernels and sandboxes answer.
        monkeypatch.setattr(page_tables, "_PAGEMAP_SCAN", 0xDEAD)
        for _ in range(3):
            rows.prepare_once(np.array([0, 1]))
    assert len(asked) == 2 * times + 2 * 3


@needs_answers
def test_pages_behind_the_end_of_a_cut_file_are_not_mapped(tmp_path):
    path, files = one_file(tmp_path)
    assert not files.are_populated([0], 64 << 10)
    files.populate(0, 64 << 10)
    assert files.are_populated([0], 64 << 10)
    assert files.are_populated([5000], 1)
    os.truncate(path, 32 << 10)
    assert not files.are_populated([0], (32 << 10) + 1)
    assert not files.are_populated([48 << 10], 4096)
    files.populate(0, 32 << 10)
    assert files.are_populated([0], 32 << 10)
    assert files.are_populated([0, 31 << 10, 5000], 1 << 10)
    assert not files.are_populated([0, 31 << 10, 5000], (1 << 10) + 1)  # the second, by a byte
    with pytest.raises(OSError, match="Bad address"):
        files.populate(0, 64 << 10)


@needs_answers
def test_a_file_in_huge_pages_may_be_cut_within_one(tmp_path):
    path, num_bytes = tmp_path / "file", 8 << 20
    path.write_bytes(bytes(num_bytes))
    files = MappedFiles([(str(path), num_bytes)], HUGE_PAGE_BYTES)
    files.populate(0, num_bytes)
    assert files.are_populated([0], num_bytes)
    are_huge = num_huge_bytes(path) > 0
    cut = (3 << 20) + 100
    os.truncate(path, cut)
    assert not files.are_populated([0], num_bytes)
    assert not files.are_populated([4 << 20], 1)
    files.populate(0, cut)
    assert files.are_populated([0], cut)
    assert not files.bytes[:cut].any()
    for start in (cut - 1, 4 << 20, 6 << 20):
        with pytest.raises(OSError, match="Bad address"):
            files.populate(start, 1 << 20)
    if not are_huge:
        pytest.skip("it holds for small pages; this file system or kernel gives no huge ones")


def num_huge_bytes(path: Path) -> int:
    """Bytes of a file that this process has mapped as huge pages."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    begins = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    found = next(line for line in lines[begins:] if line.startswith("FilePmdMapped:"))
    return int(found.split()[1]) << 10


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_large_shards_are_mapped_at_huge_pages(tmp_path):
    episodes = [Episode("a", num_frames=1100), Episode("b", num_frames=300)]
    write_store(tmp_path / "s", episodes, random_features(4096), dim=4096)
    index = open_shards(tmp_path / "s")
    with open_rows(index, "train", "map"):
        for shard in index.split_shards("train"):
            path = tmp_path / "s" / "shards" / shard.name
            lines = Path("/proc/self/maps").read_text().splitlines()
            (line,) = (line for line in lines if line.endswith(str(path)))
            assert int(line.split("-")[0], 16) % HUGE_PAGE_BYTES == 0


@needs_answers
def test_a_forked_child_is_told_of_its_own_pages(tmp_path):
    _, files = one_file(tmp_path)
    files.populate(0, 64 << 10)
    assert files.are_populated([0], 64 << 10)
    assert in_child(lambda: is_told_of_own_pages(files))


@needs_answers
def test_a_child_of_a_process_that_closed_all_its_files_is_told_too(tmp_path):
    _, files = one_file(tmp_path)

    def daemonised() -> bool:
        files.populate(0, 64 << 10)
        assert files.are_populated([0], 64 << 10)
        os.close(page_tables._own.handle())
        return in_child(lambda: is_told_of_own_pages(files))

    assert in_child(daemonised)


def is_told_of_own_pages(files: MappedFiles) -> bool:
    before = files.are_populated([0], 64 << 10)  # the kernel copies no page tables of files
    files.populate(0, 64 << 10)
    return not before and files.are_populated([0], 64 << 10)


def in_child(holds: Callable[[], bool]) -> bool:
    """Whether it holds in a forked child."""
    if (child := os.fork()) == 0:
        code = 1
        try:
            code = 0 if holds() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@needs_answers
def test_blocks_are_ready_once_prepared_and_until_their_pages_are_gone(tmp_path):
    write_store(tmp_path / "s", [Episode("a", num_frames=300)], random_features(64), dim=64)
    index = open_shards(tmp_path / "s")
    with open_rows(index, "train", "window") as rows:
        rows.prepare([0], verify=False)
        assert not rows.are_ready([0], checked=False)
        rows.release([0])
    with open_rows(index, "train", "map") as rows:
        assert not rows.are_ready([0, 1], checked=False)
        rows.prepare([0, 1], verify=False)
        assert rows.are_ready([0, 1], checked=False)
        assert not rows.are_ready([1], checked=True)
        assert not rows.are_ready([0, 2], checked=False)
        rows.prepare_once([1])
        assert rows.are_ready([1], checked=True)
        assert not rows.are_ready([0, 1], checked=True)
        shard = tmp_path / "s" / "shards" / index.split_shards("train")[0].name
        shard.chmod(0o644)
        os.truncate(shard, 8192)
        assert not rows.are_ready([1], checked=True)
