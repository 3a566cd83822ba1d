"""The cache of remote blocks: its bound, what it deletes, what it survives."""

import errno
import hashlib
import logging
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from laughstore import ConfigError, CorruptData, Unreachable, open_rows, open_shards
from laughstore.files import TEMPORARY_MARK
from laughstore.index import Index
from laughstore.reading import cache_lock
from laughstore.reading.shard_cache import GB, ShardCache, open_cache
from laughstore.remote.folder import open_url
from tests.stores import Episode, random_features, write_store

from .loopback import Fault, FaultProxy, FileServer, LoopbackServer

PAGE = 4096
DIM = 64
EPISODES = [Episode("a", "train", 700), Episode("b", "train", 300)]
FEATURES = random_features(DIM)
SHARDS = ["ab" + "0" * 62, "ab" + "1" * 62, "cd" + "2" * 62]


def sample(name: int, num_bytes: int) -> bytes:
    return np.random.default_rng([name, num_bytes]).bytes(num_bytes)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def blocks_of(cache: ShardCache) -> list[Path]:
    return files_of(cache.folder / "blocks")


class Eviction(RuleBasedStateMachine):
    """Against a dictionary in the order of last use; names are (shard, slot)."""

    names = st.tuples(st.sampled_from(SHARDS), st.integers(0, 3))

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(os.environ["LAUGHSTORE_TEST_FOLDER"]) / os.urandom(8).hex()
        self.max_pages = 8
        self.cache = ShardCache(self.root, self.max_pages * PAGE, keep_free_bytes=0)
        self.kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self.counted = 0
        self.foreign: dict[Path, bytes] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def _pages(self) -> int:
        return sum(-(-len(data) // PAGE) for data in self.kept.values())

    def _evict(self, num_pages: int) -> None:
        while self._pages() + num_pages > self.max_pages:
            self.kept.popitem(last=False)
        self.counted = self._pages()

    @rule(name=names, num_bytes=st.sampled_from([1, PAGE, PAGE + 1, 3 * PAGE, 9 * PAGE]))
    def put(self, name, num_bytes):
        data = sample(name[1], num_bytes)
        self.cache.put(name[0], name[1], data)
        num_pages = -(-num_bytes // PAGE)
        if num_pages > self.max_pages:
            return
        if self.counted + num_pages > self.max_pages:
            self._evict(num_pages)
        self.counted += num_pages
        self.kept[name] = data
        self.kept.move_to_end(name)

    @rule(name=names)
    def get(self, name):
        wanted = self.kept.get(name)
        found = self.cache.get(name[0], name[1], PAGE if wanted is None else len(wanted))
        assert found == wanted
        if wanted is not None:
            self.kept.move_to_end(name)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def ask_for_another_size(self, data):
        name = data.draw(st.sampled_from(list(self.kept)))
        assert self.cache.get(name[0], name[1], len(self.kept.pop(name)) + 1) is None

    @rule(name=names)
    def discard(self, name):
        self.cache.discard(name[0], name[1])
        self.kept.pop(name, None)

    @rule(max_pages=st.integers(4, 10))
    def open_again(self, max_pages):
        self.max_pages = max_pages
        self.cache = ShardCache(self.root, max_pages * PAGE, keep_free_bytes=0)
        if self.counted > max_pages:
            self._evict(0)

    @rule(usage=st.sampled_from([None, b"", b"17\n", b"-" * 21]))
    def lose_the_count(self, usage):
        path = self.root / "usage"
        if usage is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(usage)
        self.cache = ShardCache(self.root, self.max_pages * PAGE, keep_free_bytes=0)
        self._evict(0)

    @rule(
        where=st.sampled_from(["", "blocks", "blocks/ab", "blocks/mine"]),
        name=st.sampled_from(["notes.txt", f"{SHARDS[0]}-000001.block.bak", "usage2"]),
    )
    def add_a_foreign_file(self, where, name):
        path = self.root / where / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine" * 5000)
        os.utime(path, (0, 0))
        self.foreign[path] = path.read_bytes()

    @invariant()
    def it_holds_what_the_model_holds(self):
        names = {f"{shard}-{slot:06d}.block": data for (shard, slot), data in self.kept.items()}
        found = {path.name: path for path in files_of(self.root / "blocks")}
        assert set(names) | {p.name for p in self.foreign if "blocks" in p.parts} == set(found)
        for name, data in names.items():
            assert found[name].read_bytes() == data
        assert self.cache.num_bytes() == self._pages() * PAGE <= self.max_pages * PAGE
        for path, data in self.foreign.items():
            assert path.read_bytes() == data


@pytest.mark.slow
def test_the_least_recently_used_goes_first_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("LAUGHSTORE_TEST_FOLDER", str(tmp_path))
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Eviction, settings=settings(max_examples=30, stateful_step_count=25, deadline=None)
    )


def test_large_caches_give_back_a_part_beyond_what_is_needed(tmp_path):
    cache = ShardCache(tmp_path / "c", 100 * PAGE, keep_free_bytes=0)
    for slot in range(101):
        cache.put(SHARDS[0], slot, b"x")
    assert [int(path.name[65:71]) for path in blocks_of(cache)] == list(range(6, 101))


def test_threads_and_caches_of_one_folder_never_pass_the_bound(tmp_path):
    caches = [ShardCache(tmp_path / "c", 7 * PAGE, keep_free_bytes=0) for _ in range(2)]
    wrong: list[object] = []
    done = threading.Event()

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(60):
            slot = int(rng.integers(12))
            data = sample(slot, PAGE + slot)
            found = caches[number % 2].get(SHARDS[slot % 3], slot, len(data))
            if found is None:
                caches[number % 2].put(SHARDS[slot % 3], slot, data)
            elif found != data:
                wrong.append((slot, found[:10]))

    def watch() -> None:
        while not done.is_set():
            with caches[0]._lock.held() as held:
                if held is not None and caches[0].num_bytes() > 7 * PAGE:
                    wrong.append("too many bytes")
            time.sleep(0.005)  # outside of the lock, which is not granted in turn

    watcher = threading.Thread(target=watch)
    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in (watcher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    watcher.join()
    assert not wrong
    assert not [path for path in blocks_of(caches[0]) if TEMPORARY_MARK in path.name]


_WRITER = """
import os, sys, threading
from pathlib import Path
import numpy as np
from laughstore.reading.shard_cache import ShardCache
cache = ShardCache(Path(sys.argv[1]), 40 << 20, keep_free_bytes=0)
def work(number):
    rng = np.random.default_rng()
    while True:
        slot = int(rng.integers(1000))
        cache.put("ab" * 32, slot, np.full(1 << 20, slot % 251, np.uint8).data)
for number in range(3):
    threading.Thread(target=work, args=(number,), daemon=True).start()
print("begun", flush=True)
threading.Event().wait()
"""


def test_a_writer_killed_at_any_time_leaves_no_wrong_block_and_no_lock(tmp_path):
    folder = tmp_path / "c"
    for attempt in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == "begun\n"
            while not list(folder.glob("blocks/ab/*.block")):
                time.sleep(0.01)
            time.sleep(0.13 * attempt)
            child.send_signal(signal.SIGKILL)
        cache = ShardCache(folder, 40 << 20, keep_free_bytes=0)
        whole = list(folder.glob(f"blocks/ab/{'ab' * 32}-??????.block"))
        assert whole
        for path in whole:
            slot = int(path.name[65:71])
            assert path.read_bytes() == bytes([slot % 251]) * (1 << 20)
        assert cache.num_bytes() <= int((folder / "usage").read_bytes()) <= 40 << 20
        cache.put(SHARDS[0], attempt, b"still works")
        assert cache.get(SHARDS[0], attempt, 11) == b"still works"
    left = folder / "blocks" / "ab" / f"{'ab' * 32}-000001.block{TEMPORARY_MARK}{'0' * 12}"
    left.write_bytes(b"a")
    ShardCache(folder, 1 << 20)
    assert left.exists()  # somebody may be writing it
    os.utime(left, (0, 0))
    (folder / "usage").unlink()
    ShardCache(folder, 1 << 20)
    assert not left.exists()


def test_folders_of_others_are_refused_and_links_not_followed(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds other files \(thesis.txt\)"):
        ShardCache(other, GB)
    with pytest.raises(ConfigError, match="cannot hold a cache"):
        ShardCache(other / "thesis.txt", GB)
    assert files_of(tmp_path) == [other / "thesis.txt"]
    with pytest.raises(ConfigError, match="at least 1"):
        ShardCache(tmp_path / "c", 0)
    with pytest.raises(ConfigError, match="is a URL") as caught:
        ShardCache("https://me:secret@host/x", GB)  # pyright: ignore[reportArgumentType]
    assert "secret" not in str(caught.value)
    far = open_url("https://127.0.0.1/store")
    assert open_cache(None, 50, far) is None
    for gb in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="cache_gb"):
            open_cache(tmp_path / "c", gb, far)
    cache = ShardCache(tmp_path / "c", PAGE, keep_free_bytes=0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{SHARDS[2]}-000000.block").write_bytes(b"x" * PAGE)
    (cache.folder / "blocks" / "ee").symlink_to(elsewhere)
    for slot in range(3):
        cache.put(SHARDS[0], slot, b"x" * PAGE)
    assert len(files_of(elsewhere)) == 1
    # A folder that is no cache any more: nothing in it is deleted.
    (cache.folder / "laughstore-cache").unlink()
    before = files_of(cache.folder)
    cache.put(SHARDS[0], 9, b"x" * PAGE)
    assert files_of(cache.folder) == before
    with pytest.raises(ConfigError, match="holds other files"):
        ShardCache(cache.folder, 1)
    (cache.folder / "laughstore-cache").write_text("another release")
    with pytest.raises(ConfigError, match="mark of a cache"):
        ShardCache(cache.folder, 1)
    assert files_of(cache.folder) == sorted([*before, cache.folder / "laughstore-cache"])


def test_links_planted_for_its_folders_lead_nowhere(tmp_path, caplog):
    """What it would write, count and delete there are files of others."""
    elsewhere = tmp_path / "elsewhere"
    kept = elsewhere / "ab" / f"{SHARDS[0]}-000009.block"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x" * PAGE)
    os.utime(kept, (0, 0))
    cache = ShardCache(tmp_path / "c", PAGE, keep_free_bytes=0)
    (cache.folder / "blocks" / "ab").symlink_to(kept.parent)
    assert cache.get(SHARDS[0], 9, PAGE) is None
    assert cache.get(SHARDS[0], 9, 5) is None
    cache.discard(SHARDS[0], 9)
    cache.put(SHARDS[0], 1, b"abc")
    assert "is reached by a link" in caplog.text
    (cache.folder / "blocks" / "ab").unlink()
    (cache.folder / "blocks").rmdir()
    (cache.folder / "blocks").symlink_to(elsewhere)
    assert cache.num_bytes() == 0
    assert cache.get(SHARDS[0], 9, PAGE) is None
    (cache.folder / "usage").unlink()
    with pytest.raises(ConfigError, match="blocks is a link"):
        ShardCache(cache.folder, 1)
    assert files_of(elsewhere) == [kept]
    assert kept.stat().st_mtime == 0


def test_odd_files_in_the_place_of_blocks_are_passed_by(tmp_path, caplog):
    cache = ShardCache(tmp_path / "c", GB, keep_free_bytes=0)
    paths = [cache._path(SHARDS[0], slot) for slot in range(4)]
    (paths[0] / "of others").mkdir(parents=True)
    os.mkfifo(paths[1])
    paths[2].symlink_to(tmp_path / "nowhere")
    num_open = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for slot in range(4):
        assert cache.get(SHARDS[0], slot, 3) is None
        cache.put(SHARDS[0], slot, b"abc")
        assert cache.get(SHARDS[0], slot, 3) == (None if slot == 0 else b"abc")
    assert len(os.listdir("/proc/self/fd")) == num_open  # noqa: PTH208
    assert not caplog.records
    assert blocks_of(cache) == paths[1:]
    assert not (tmp_path / "nowhere").exists()


def test_names_that_it_never_gave_are_not_its_own(tmp_path):
    cache = ShardCache(tmp_path / "c", PAGE, keep_free_bytes=0)
    others = [
        cache.folder / "blocks" / "ab" / f"{SHARDS[0]}-{chr(0x661) * 6}.block",
        cache.folder / "blocks" / "cd" / f"{SHARDS[0]}-000001.block",
    ]
    for path in others:
        path.parent.mkdir()
        path.write_bytes(b"x")
    for slot in range(3):
        cache.put(SHARDS[0], slot, b"abc")
    assert cache.num_bytes() == PAGE
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("kind", ["pipe", "second name", "link"])
def test_a_count_that_is_no_file_of_its_own_is_never_written(tmp_path, kind, caplog):
    cache = ShardCache(tmp_path / "c", GB)
    usage, thesis = cache.folder / "usage", tmp_path / "thesis"
    thesis.write_bytes(b"years of work")
    usage.unlink()
    if kind == "pipe":
        os.mkfifo(usage)
    elif kind == "link":
        usage.symlink_to(thesis)
    else:
        usage.hardlink_to(thesis)
    with pytest.raises(ConfigError, match="cannot hold a cache"):
        ShardCache(cache.folder, GB)
    cache.put(SHARDS[0], 1, b"abc")
    assert "no more blocks are kept" in caplog.text
    assert thesis.read_bytes() == b"years of work"


def test_a_count_that_is_too_long_is_put_right_once(tmp_path, monkeypatch):
    folder = ShardCache(tmp_path / "c", GB).folder
    (folder / "usage").write_bytes(b"x" * 100)
    cache = ShardCache(folder, GB)
    assert (folder / "usage").read_bytes() == b"0" * 20 + b"\n"
    monkeypatch.setattr(cache, "_scan", lambda: pytest.fail("looked at all files again"))
    cache.put(SHARDS[0], 1, b"abc")
    assert cache.get(SHARDS[0], 1, 3) == b"abc"


_MARKED_BY_A_PIPE = """
import os, sys
from pathlib import Path
from laughstore.errors import ConfigError
from laughstore.reading.shard_cache import ShardCache
os.mkfifo(sys.argv[1] + "/laughstore-cache")
try:
    ShardCache(Path(sys.argv[1]), 1)
except ConfigError as error:
    print(error)
"""


def test_a_pipe_for_a_mark_keeps_nobody_waiting(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _MARKED_BY_A_PIPE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "is not this release's mark of a cache" in done.stdout, done.stderr


def test_it_holds_nothing_open_and_passes_to_other_processes(tmp_path):
    cache = ShardCache(tmp_path / "c", GB)
    cache.put(SHARDS[0], 1, b"abc")
    num_open = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    other = pickle.loads(pickle.dumps(cache))  # our own object, as a worker process gets it
    assert other.get(SHARDS[0], 1, 3) == b"abc"
    assert len(os.listdir("/proc/self/fd")) == num_open  # noqa: PTH208


def test_a_holder_of_the_lock_that_hangs_keeps_nobody_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_lock, "_LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(cache_lock, "_NO_TRY_S", 0.5)
    cache, other = (ShardCache(tmp_path / "c", GB) for _ in range(2))
    with other._lock.held() as held:
        assert held is not None
        cache.put(SHARDS[0], 1, b"abc")
        assert cache.get(SHARDS[0], 1, 3) is None
        began_s = time.monotonic()
        for slot in range(1000):  # not each of them waits
            cache.put(SHARDS[0], slot, b"abc")
        assert time.monotonic() - began_s < 20
        other.put(SHARDS[0], 2, b"abc")
    assert blocks_of(cache) == []
    time.sleep(0.6)
    cache.put(SHARDS[0], 1, b"abc")
    assert cache.get(SHARDS[0], 1, 3) == b"abc"


_FORKER = """
import os, signal, sys, threading, time
from pathlib import Path
from laughstore.reading.shard_cache import ShardCache
cache = ShardCache(Path(sys.argv[1]), 10**9)
held = threading.Event()
def hold():
    with cache._lock.held() as descriptor:
        assert descriptor is not None
        held.set()
        time.sleep(600)
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    cache.put("ab" * 32, 0, b"parent holds it")  # waits in vain, and does not take it over
    print(len(os.listdir(sys.argv[1] + "/blocks")), flush=True)
    time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_forked_child_inherits_no_lock(tmp_path):
    """A DataLoader forks its workers whenever it likes: another thread may hold the lock then."""
    cache = ShardCache(tmp_path / "c", GB)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _FORKER, str(cache.folder)],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert parent.stdout.readline() == "0\n"
            parent.kill()
            parent.wait()
            os.kill(child, 0)  # it lives
            cache.put(SHARDS[0], 1, b"abc")
            assert cache.get(SHARDS[0], 1, 3) == b"abc"
        finally:
            parent.kill()
            os.kill(child, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_lock_that_was_given_back_is_free_though_a_child_was_forked_meanwhile(tmp_path):
    cache = ShardCache(tmp_path / "c", GB)
    with cache._lock.held() as descriptor:
        assert descriptor is not None
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        ShardCache(tmp_path / "c", GB).put(SHARDS[0], 1, b"abc")
        assert cache.get(SHARDS[0], 1, 3) == b"abc"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


_WITHOUT_FCNTL = """
import os, sys
from pathlib import Path
sys.modules["fcntl"] = None
import laughstore.reading.blocks, laughstore.reading.window_rows, laughstore.reading.shard_cache
os.name = "nt"
from laughstore.errors import ConfigError
try:
    laughstore.reading.shard_cache.ShardCache(Path("c"), 1)
except ConfigError as error:
    print(error)
"""


def test_systems_without_posix_locks_read_and_have_no_cache(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_FCNTL], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "a cache needs a POSIX system; read without one here\n", done.stderr
    assert list(tmp_path.iterdir()) == []


# Through a reader.


@pytest.fixture(params=["none", "zstd"])
def served(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Index, Index, LoopbackServer]]:
    """(the index at home, the same over HTTP, the server)."""
    path = tmp_path / "files" / "store"
    write_store(path, EPISODES, FEATURES, dim=DIM, shard_frames=256, codec=request.param)
    with FileServer(tmp_path / "files") as server:
        yield open_shards(path), open_shards(f"{server.url}/store/shards"), server


def read_all(index: Index, cache: ShardCache | None) -> bytes:
    """All frames, prepared in three calls."""
    digest = hashlib.sha256()
    with open_rows(index, "train", "window", cache=cache) as rows:
        for blocks in np.array_split(np.arange(index.num_blocks), 3):
            rows.prepare_once(blocks)
            frames = blocks[:, None] * index.block_frames + np.arange(index.block_frames)
            digest.update(rows.matrix[rows.row_numbers(frames.ravel())].tobytes())
            rows.release(blocks)
    return digest.digest()


def test_what_was_fetched_once_is_not_asked_for_again(served, tmp_path):
    home, far, server = served
    cache = ShardCache(tmp_path / "c", GB)
    expected = read_all(home, None)
    assert read_all(far, cache) == expected
    assert len(blocks_of(cache)) == far.num_blocks
    read_index = server.count()
    assert read_all(far, cache) == expected
    assert server.count() == read_index
    # Another URL, another process: the index is read again, no shard is.
    again = open_shards(f"http://localhost:{server.port}/store")
    server.requests.clear()
    assert read_all(again, ShardCache(tmp_path / "c", GB)) == expected
    assert server.count(path=r"\.tar") == 0


def test_sizes_of_remote_shards_are_learned_from_their_answers(served):
    _, far, server = served
    server.requests.clear()
    read_all(far, None)
    assert server.count("HEAD", r"\.tar") == 0


def test_half_of_it_comes_from_the_cache_and_half_from_afar(served, tmp_path):
    home, far, server = served
    cache = ShardCache(tmp_path / "c", GB)
    expected = read_all(home, None)
    read_all(far, cache)
    for path in blocks_of(cache)[::2]:
        path.unlink()
    server.requests.clear()
    assert read_all(far, cache) == expected
    assert 0 < server.count("GET", r"\.tar") <= -(-far.num_blocks // 2)
    assert len(blocks_of(cache)) == far.num_blocks


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "empty", "other block", "zeros"])
def test_damaged_files_of_the_cache_are_noticed_and_fetched_again(served, tmp_path, damage):
    home, far, server = served
    cache = ShardCache(tmp_path / "c", GB)
    expected = read_all(home, None)
    read_all(far, cache)
    rng = np.random.default_rng(0)
    files = blocks_of(cache)
    good = {path: path.read_bytes() for path in files}
    for number, path in enumerate(files):
        data = bytearray(good[path])
        if damage == "flip":
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        elif damage == "cut":
            del data[int(rng.integers(len(data))) :]
        elif damage == "longer":
            data += b"\0"
        elif damage == "empty":
            data.clear()
        elif damage == "zeros":
            data[:] = bytes(len(data))
        else:
            data[:] = good[files[number - 1]]
        path.write_bytes(data)
    assert read_all(far, cache) == expected
    assert {path: path.read_bytes() for path in blocks_of(cache)} == good
    server.requests.clear()
    assert read_all(far, cache) == expected
    assert server.count() == 0


def test_a_damaged_remote_block_is_not_kept(served, tmp_path):
    home, far, _ = served
    cache = ShardCache(tmp_path / "c", GB)
    assert home.folder.local is not None
    path = home.folder.local / home.shards[0].name
    data = bytearray(path.read_bytes())
    data[home.geometry.block_offsets(home.block_bytes[:1].astype(np.int64))[0] + 50] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(CorruptData, match=r"http.*000000"):
        read_all(far, cache)
    assert f"{home.shard_sha256[0]}-000000.block" not in {p.name for p in blocks_of(cache)}


def test_a_cache_too_small_for_anything_is_only_slower(served, tmp_path):
    home, far, _ = served
    expected = read_all(home, None)
    for num_bytes in (1, PAGE, 5 * PAGE, 20 * PAGE):
        cache = ShardCache(tmp_path / "c", num_bytes, keep_free_bytes=0)
        for _ in range(2):
            assert read_all(far, cache) == expected
            assert cache.num_bytes() <= num_bytes


def test_a_full_disk_is_told_once_and_reading_goes_on(served, tmp_path, caplog):
    home, far, _ = served
    expected = read_all(home, None)
    cache = ShardCache(tmp_path / "c", GB)
    cache.put(SHARDS[0], 1, b"abc")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with caplog.at_level(logging.WARNING):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            assert read_all(far, cache) == expected
            assert read_all(far, cache) == expected
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'c'}: no more blocks are kept ({os.strerror(errno.EFBIG)}); reading goes on"
        " without"
    ]
    assert cache.get(SHARDS[0], 1, 3) == b"abc"
    assert len(blocks_of(cache)) == 1
    caplog.clear()
    cautious = ShardCache(tmp_path / "c", GB, keep_free_bytes=1 << 60)
    assert read_all(far, cautious) == expected
    assert len(caplog.records) == 1
    assert "would be free" in caplog.text
    assert len(blocks_of(cautious)) == 1


def test_a_folder_that_vanishes_is_told_once_and_reading_goes_on(served, tmp_path, caplog):
    home, far, _ = served
    cache = ShardCache(tmp_path / "c", GB)
    shutil.rmtree(cache.folder)
    assert read_all(far, cache) == read_all(home, None)
    assert len(caplog.records) == 1
    assert not cache.folder.exists()


def test_stores_of_this_machine_do_not_use_it(served, tmp_path):
    home, _, _ = served
    cache = ShardCache(tmp_path / "c", GB)
    read_all(home, cache)
    open_rows(home, "train", cache=cache).close()
    assert blocks_of(cache) == []


def test_a_cache_for_a_store_of_this_machine_is_not_made_and_one_line_says_so(
    served, tmp_path, caplog
):
    home, far, _ = served
    assert open_cache(tmp_path / "c", 1, home.folder) is None
    assert [record.message for record in caplog.records] == [
        f"{home.folder.describe()} is on this machine: the cache {tmp_path / 'c'} is not used"
    ]
    assert not (tmp_path / "c").exists()
    assert open_cache(tmp_path / "c", 1, far.folder) is not None


def test_busy_answers_are_asked_for_again_and_what_is_kept_outlives_the_server(served, tmp_path):
    home, _, server = served
    cache = ShardCache(tmp_path / "c", GB)
    with FaultProxy(server.port) as proxy:
        far = open_shards(f"{proxy.url}/store")
        fault = Fault("status", times=3, status=503, path=r"\.tar")
        proxy.spoil(fault)
        assert read_all(far, cache) == read_all(home, None)
        assert fault.done == 3
    # Nobody answers any more.
    assert read_all(far, cache) == read_all(home, None)


def test_a_store_that_is_replaced_under_its_url_never_mixes_with_what_is_kept(served, tmp_path):
    home, far, server = served
    cache = ShardCache(tmp_path / "c", GB)
    expected = read_all(home, None)
    read_all(far, cache)
    for path in blocks_of(cache)[::2]:
        path.unlink()
    kept = {path: path.read_bytes() for path in blocks_of(cache)}
    root = tmp_path / "files"
    old = root / "old"
    (root / "store").rename(old)
    write_store(
        root / "store",
        EPISODES,
        random_features(DIM, seed=1),
        dim=DIM,
        shard_frames=256,
        codec=home.spec.codec,
    )
    # Who opened the old one is told, by its checksums or sizes; the rest of the cache stands.
    with pytest.raises((CorruptData, Unreachable)):
        read_all(far, cache)
    assert {path: path.read_bytes() for path in blocks_of(cache)} == kept
    # Who opens it now reads the new one.
    renewed = open_shards(f"{server.url}/store")
    other = read_all(open_shards(root / "store"), None)
    assert read_all(renewed, cache) == other != expected
    assert read_all(open_shards(f"{server.url}/old"), cache) == expected


_INTERRUPTED = """
import sys
from pathlib import Path
import numpy as np
from laughstore import open_rows, open_shards
from laughstore.reading.shard_cache import ShardCache
index = open_shards(sys.argv[1])
with open_rows(index, "train", cache=ShardCache(Path(sys.argv[2]), 10**9)) as rows:
    rows.prepare_once(np.arange(index.num_blocks))
"""


def test_ctrl_c_while_blocks_come_ends_at_once_and_leaves_a_good_cache(served, tmp_path):
    home, far, _ = served
    asked, one = threading.Event(), threading.Lock()

    def answer(request) -> None:
        if request.path.endswith(".tar") and request.command == "GET":
            with one:
                if asked.is_set():  # the second of the shards never comes
                    slow.stopping.wait(60)
                asked.set()
        request.reply_file(tmp_path / "files" / request.path.lstrip("/"))

    with LoopbackServer(answer) as slow:
        child = subprocess.Popen(
            [sys.executable, "-c", _INTERRUPTED, f"{slow.url}/store", str(tmp_path / "c")],
            stderr=subprocess.PIPE,
            text=True,
        )
        with child:
            try:
                assert asked.wait(60)
                until_s = time.monotonic() + 60
                while not list(tmp_path.glob("c/blocks/*/*.block")):
                    assert time.monotonic() < until_s
                    time.sleep(0.01)
                began_s = time.monotonic()
                child.send_signal(signal.SIGINT)
                _, said = child.communicate(timeout=30)
            finally:
                child.kill()
        assert time.monotonic() - began_s < 10
        assert "KeyboardInterrupt" in said
        assert child.returncode != 0
    cache = ShardCache(tmp_path / "c", GB)
    assert cache.num_bytes() > 0
    assert read_all(far, cache) == read_all(home, None)


def test_many_scattered_blocks_are_asked_for_side_by_side(tmp_path):
    """Each answer waits until 16 requests are there at once: fewer would wait in vain."""
    path = tmp_path / "files" / "store"
    write_store(path, [Episode("a", "train", 128 * 64)], FEATURES, dim=DIM, shard_frames=1024)
    together = threading.Barrier(16)
    lonely: list[str] = []

    def answer(request) -> None:
        if request.path.endswith(".tar"):
            try:
                together.wait(30)
            except threading.BrokenBarrierError:
                lonely.append(request.path)
        request.reply_file(tmp_path / "files" / request.path.lstrip("/"))

    with LoopbackServer(answer) as server:
        index = open_shards(f"{server.url}/store")
        with open_rows(index, "train") as rows:
            rows.prepare_once(np.arange(0, 64, 2))
            frames = np.arange(0, 64, 2) * index.block_frames
            np.testing.assert_array_equal(
                rows.matrix[rows.row_numbers(frames)], FEATURES("a", 0, 128 * 64)[::256]
            )
    assert not lonely
