import mmap
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from laughstore import open_shards, open_store
from laughstore.geometry import HUGE_PAGE_BYTES
from laughstore.index import Shard
from laughstore.reading import mapping, page_tables
from laughstore.reading.mapping import MappedFiles
from laughstore.reading.page_tables import are_mapped
from laughstore.reading.rows import open_rows
from tests.stores import Episode, random_features, write_store

_MADV_DONTNEED = 4
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
    files = MappedFiles([(str(path), num_bytes)], HUGE_PAGE_BYTES, huge_pages=True)
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


def flags_of(path: Path) -> list[tuple[int, set[str]]]:
    """Where a file is mapped in this process, and what the kernel was advised of."""
    found = []
    start = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            start = int(line.split("-")[0], 16) if line.endswith(str(path)) else None
        elif line.startswith("VmFlags:") and start is not None:
            found.append((start, set(line.split()[1:])))
    return found


needs_huge_pages = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this kernel has none"
)


@needs_huge_pages
@pytest.mark.parametrize("memory", [1 << 40, 1 << 20])
def test_files_that_memory_can_hold_are_read_in_huge_pages(tmp_path, monkeypatch, memory):
    episodes = [Episode("a", num_frames=1100), Episode("b", num_frames=300)]
    write_store(tmp_path / "s", episodes, random_features(4096), dim=4096)
    index = open_shards(tmp_path / "s")
    monkeypatch.setattr("laughstore.reading.memory.memory_bytes", lambda: memory)
    is_advised = memory == 1 << 40 and mapping._are_read_whole()
    with open_rows(index, "train", "map") as rows:
        # Until all of a shard was read it is read at random.
        left = {shard.name: set(shard_blocks(shard)) for shard in index.split_shards("train")}
        assert max(map(len, left.values())) > 1
        for block in range(index.num_blocks):
            rows.prepare_once(np.array([block]))
            for name, blocks in left.items():
                blocks.discard(block)
                ((start, flags),) = flags_of(tmp_path / "s" / "shards" / name)
                assert start % HUGE_PAGE_BYTES == 0
                assert ("hg" in flags) == is_advised
                assert ("rr" in flags) == (is_advised and bool(blocks))


def shard_blocks(shard: Shard) -> range:
    return range(shard.first_block, shard.first_block + shard.num_blocks)


@needs_answers
@needs_huge_pages
def test_a_shard_that_was_taken_back_may_stay_from_then_on(tmp_path):
    write_store(tmp_path / "s", [Episode("a", num_frames=300)], random_features(4096), dim=4096)
    index = open_shards(tmp_path / "s")
    shard = index.split_shards("train")[0]
    path = tmp_path / "s" / "shards" / shard.name
    with open_rows(index, "train", "map") as rows:
        for is_read_at_random in (True, False):
            rows.prepare_once(np.array([0]))
            ((start, flags),) = flags_of(path)
            assert ("rr" in flags) == (is_read_at_random and mapping._are_read_whole())
            libc = mapping._libc()
            assert libc.madvise(start, path.stat().st_size, _MADV_DONTNEED) == 0


@pytest.mark.parametrize(
    ("release", "size", "are_read_whole"),
    [
        ("6.18.44-generic", "2097152", True),
        ("5.18", "2097152", True),
        ("5.15.0-130-generic", "2097152", False),
        ("6.8.0", "536870912", False),
        ("6.8.0", None, False),
        ("next", "2097152", False),
    ],
)
def test_kernels_that_would_read_page_by_page_are_not_advised(
    tmp_path, monkeypatch, release, size, are_read_whole
):
    path = tmp_path / "hpage_pmd_size"
    if size is not None:
        path.write_text(size + "\n")
    monkeypatch.setattr(mapping, "_HUGE_PAGE_SIZE", path)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    assert mapping._are_read_whole() == are_read_whole


def test_small_blocks_are_read_alone(tmp_path):
    write_store(tmp_path / "s", [Episode("a", num_frames=300)], random_features(64), dim=64)
    index = open_shards(tmp_path / "s")
    with open_rows(index, "train", "map") as rows:
        rows.prepare_once(np.array([0]))
        for shard in index.split_shards("train"):
            ((_, flags),) = flags_of(tmp_path / "s" / "shards" / shard.name)
            assert not flags & {"hg", "rr"}


@needs_huge_pages
def test_frames_of_a_recording_are_read_without_what_lies_around_them(tmp_path):
    write_store(tmp_path / "s", [Episode("a", num_frames=300)], random_features(4096), dim=4096)
    with open_store(tmp_path / "s") as store:
        store.frames("a", stop=1)
        shards = [
            tmp_path / "s" / "shards" / item.name for item in store.index.split_shards("train")
        ]
        mapped = [flags for shard in shards for _, flags in flags_of(shard)]
        assert mapped
        assert not any(flags & {"hg", "rr"} for flags in mapped)


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
