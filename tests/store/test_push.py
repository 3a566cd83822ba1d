"""Pushing a store: against a real S3 server on loopback, with faults, kills and two pushers."""

import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from laughstore import layout
from laughstore.annotations import Annotations
from laughstore.cli.main import main
from laughstore.codec import Codec
from laughstore.commit import commit_annotations
from laughstore.errors import (
    ConfigError,
    CorruptData,
    IncompleteStore,
    LaughstoreError,
    NotFound,
    Unreachable,
)
from laughstore.folders import LocalFolder
from laughstore.integrity.verify import verify
from laughstore.remote import upload
from laughstore.remote.client import Patience
from laughstore.remote.push import PushResult, push
from laughstore.remote.target import FileToSend
from laughstore.remote.upload import BucketTarget
from laughstore.store import open_shards, open_store
from tests.stores import Episode, laugh, random_features, write_store

from .loopback import Fault, FaultKind, FaultProxy
from .servers import S3Server
from .whole_store import write_whole_store

DIM = 16
EPISODES = (
    Episode("a", "train", 600, [laugh(1, 2)]),
    Episode("b", "test", 300, [laugh(3, 4)], speakers=("Only",)),
)
HASTY = Patience(max_retries=4, total_s=30.0, first_pause_s=0.01, longest_pause_s=0.05)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "UPLOAD_PATIENCE", HASTY)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one generation; tests must not change it."""
    return _write(tmp_path_factory.mktemp("push") / "store")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A place of the test's own in the bucket."""
    return f"s3://laughter/push/{tmp_path.name}"


def _write(path: Path, seed: int = 0) -> Path:
    features = random_features(DIM, seed)
    return write_store(path, EPISODES, features, dim=DIM, shard_frames=256)


def _copy(store: Path, path: Path) -> Path:
    shutil.copytree(store, path)
    return path


def _annotate(store: Path, end_s: float) -> None:
    """Publish a generation with another laugh in recording a."""
    recording = open_store(store).index.recording("a").id
    changed: Annotations = replace(EPISODES[0].annotations, events=(laugh(1, end_s),))
    commit_annotations(store, {recording: changed})


def _objects(s3_server: S3Server, url: str) -> dict[str, bytes]:
    """Every object below a URL."""
    prefix = url.removeprefix("s3://laughter/")
    listing = s3_server.request("GET", f"/laughter?list-type=2&prefix={prefix}/").decode()
    keys = [part.partition("</Key>")[0] for part in listing.split("<Key>")[1:]]
    return {key[len(prefix) + 1 :]: s3_server.request("GET", f"/laughter/{key}") for key in keys}


def _written(proxy: FaultProxy, url: str) -> list[str]:
    """Paths of the requests that wrote something, in their order."""
    prefix = url.replace("s3://", "/") + "/"
    changing = [item for item in proxy.requests if item.method not in ("GET", "HEAD")]
    return [item.path.partition("?")[0].removeprefix(prefix) for item in changing]


# ---- what is there afterwards -------------------------------------------------------------------


def test_a_pushed_store_reads_as_the_one_here(
    s3_environment: S3Server, store: Path, url: str
) -> None:
    result = push(store, url)
    here, there = open_store(store), open_store(url)
    assert there.manifest.to_bytes() == here.manifest.to_bytes()
    for recording in here.recordings:
        for assignment in here.assignments(recording.id):
            rows = here.frames(recording.id, assignment)
            assert there.frames(recording.id, assignment).tobytes() == rows.tobytes()
            array = there.array(recording.id, assignment)
            assert np.asarray(array[:]).tobytes() == rows.tobytes()
        assert there.annotations(recording.id) == here.annotations(recording.id)
        np.testing.assert_array_equal(
            np.asarray(there.codes(recording.id)[:]), np.asarray(here.codes(recording.id)[:])
        )
    assert open_shards(f"{url}/shards").index_id == here.index.index_id
    report = verify(url)
    assert not report.faults
    assert not report.notes
    objects = _objects(s3_environment, url)
    assert not [path for path in objects if path.startswith("features.zarr") and "/c/" in path]
    assert all((store / path).read_bytes() == data for path, data in objects.items())
    assert len(objects) == result.num_files
    assert result.num_sent == result.num_files - 2  # store.json and index.json come besides
    assert result.num_there == 0


def test_data_go_first_and_the_manifest_last(
    fault_proxy: FaultProxy, store: Path, url: str
) -> None:
    push(store, url)
    written = _written(fault_proxy, url)
    assert len(written) == len(set(written))  # each file once
    assert written[:2] == [layout.FIRST_PLAN, layout.index(1)]
    assert written[-3:] == [layout.generation(1), layout.STORE_JSON, layout.CURRENT_INDEX]
    data = [path.endswith(".tar") or ".zarr/" in path for path in written]
    assert data[2:].index(False) == sum(data)


def test_what_is_there_is_not_sent_again(
    fault_proxy: FaultProxy, s3_server: S3Server, store: Path, url: str
) -> None:
    first = push(store, url)
    fault_proxy.spoil()
    again = push(store, url)
    assert _written(fault_proxy, url) == []
    assert (again.num_sent, again.num_there) == (0, first.num_sent)
    shard = layout.shard("train", open_store(store).index.shards[0].number)
    for lost in (shard, layout.CURRENT_INDEX):
        s3_server.request("DELETE", f"/{url.removeprefix('s3://')}/{lost}")
        fault_proxy.spoil()
        push(store, url)
        assert _written(fault_proxy, url) == [lost]
    assert not verify(url).faults


def test_a_dry_run_tells_and_writes_nothing(fault_proxy: FaultProxy, store: Path, url: str) -> None:
    told = push(store, url, zarr_keys=True, dry_run=True)
    assert _written(fault_proxy, url) == []
    assert told.dry_run
    done = push(store, url, zarr_keys=True)
    assert replace(told, dry_run=False) == done
    assert done.num_bytes_copied == sum(item.num_bytes for item in open_store(store).index.shards)


def test_zarr_names_are_copied_in_the_bucket_and_read_by_stock_zarr(
    fault_proxy: FaultProxy, store: Path, url: str
) -> None:
    import zarr
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    push(store, url)
    fault_proxy.spoil()
    result = push(store, url, zarr_keys=True)
    shards = open_store(store).index.shards
    assert (result.num_copied, result.num_sent) == (len(shards), 0)
    copies = [item for item in fault_proxy.requests if item.method == "PUT"]
    assert len(copies) == len(shards)
    assert all("x-amz-copy-source" in item.headers for item in copies)
    fault_proxy.spoil()
    assert push(store, url, zarr_keys=True).num_copied == 0
    assert not verify(url).faults
    prefix = url.removeprefix("s3://laughter/")
    prefix = f"{prefix}/{layout.FEATURES}"
    bucket = S3Store("laughter", prefix=prefix, client_options={"allow_http": True})
    here = open_store(store)
    recording = here.recordings[0]
    path = f"{recording.split}/{recording.id}/{recording.streams[0].assignment}"
    array = zarr.open_array(ObjectStore(bucket, read_only=True), path=path, mode="r")
    assert np.asarray(array[:]).tobytes() == here.frames(recording.id).tobytes()


def test_objects_that_other_means_put_there_are_read_to_compare(
    fault_proxy: FaultProxy, s3_server: S3Server, store: Path, url: str
) -> None:
    s3_server.put_tree(store / "shards", f"{url.removeprefix('s3://laughter/')}/shards")
    num_shards = len(open_store(store).index.shards)
    assert push(store, url).num_there == num_shards + 2  # index and columns
    assert not [path for path in _written(fault_proxy, url) if path.endswith(".tar")]


@pytest.mark.parametrize("codec", [pytest.param("none", marks=pytest.mark.slow), "zstd"])
def test_a_store_with_one_of_everything_is_whole_there(
    s3_environment: S3Server, url: str, tmp_path: Path, codec: Codec
) -> None:
    local = write_whole_store(tmp_path / "store", codec)
    push(local, url)
    report = verify(url)
    assert not report.faults
    assert report.generations == (3,)  # the older ones were not sent
    here, there = open_store(local), open_store(url)
    assert there.frames("a").tobytes() == here.frames("a").tobytes()
    assert np.asarray(there.array("a")[:]).tobytes() == here.frames("a").tobytes()
    assert there.manifest.quarantined == here.manifest.quarantined


# ---- generations --------------------------------------------------------------------------------


def test_a_newer_generation_replaces_an_older_one_that_stays_readable(
    s3_environment: S3Server, store: Path, url: str, tmp_path: Path
) -> None:
    local = _copy(store, tmp_path / "store")
    push(local, url)
    reader = open_store(url)
    _annotate(local, 2.5)
    result = push(local, url)
    assert result.num_sent == 4  # index, columns, annotations of one recording, the generation
    assert reader.frames("a", stop=10).tobytes() == open_store(url).frames("a", stop=10).tobytes()
    assert reader.annotations("a").events[0].end_us == 2_000_000
    assert open_store(url).annotations("a").events[0].end_us == 2_500_000
    assert open_store(url, generation=1).annotations("a").events[0].end_us == 2_000_000
    assert open_shards(f"{url}/shards").generation == 2
    assert verify(url).generations == (2, 1)
    with pytest.raises(ConfigError, match="holds generation 2 of this store, here is 1"):
        push(store, url)


@pytest.mark.parametrize("finished", [True, False])
def test_another_store_is_refused_before_anything_is_written(
    fault_proxy: FaultProxy, store: Path, url: str, tmp_path: Path, finished: bool
) -> None:
    other = _write(tmp_path / "other", seed=5)
    if finished:
        push(other, url)
    else:
        fault_proxy.spoil(Fault("status", 999, status=400, path="units/", method="PUT"))
        with pytest.raises(Unreachable):
            push(other, url)
    fault_proxy.spoil()
    # The plan of a store of other features may be the same: then its files differ.
    with pytest.raises(ConfigError, match=r"another (store|generation)|something else"):
        push(store, url)
    assert _written(fault_proxy, url) == []


def test_a_file_of_the_same_size_and_other_bytes_is_refused(
    fault_proxy: FaultProxy, s3_server: S3Server, store: Path, url: str
) -> None:
    shard = open_store(store).index.shards[1]
    data = bytearray((store / "shards" / shard.name).read_bytes())
    data[1000] ^= 1
    s3_server.put(f"{url.removeprefix('s3://laughter/')}/shards/{shard.name}", bytes(data))
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=rf"{shard.name} is there and holds something else"):
            push(store, url, dry_run=dry_run)
    assert _written(fault_proxy, url) == []


@pytest.mark.slow
def test_copies_that_were_changed_apart_do_not_overwrite_each_other(
    fault_proxy: FaultProxy, store: Path, url: str, tmp_path: Path
) -> None:
    one, two = _copy(store, tmp_path / "one"), _copy(store, tmp_path / "two")
    push(store, url)
    for local, end_s in ((one, 2.5), (two, 2.7)):
        _annotate(local, end_s)
    push(one, url)
    fault_proxy.spoil()
    with pytest.raises(ConfigError, match="changed apart"):
        push(two, url)
    _annotate(two, 2.8)
    with pytest.raises(ConfigError, match="changed apart"):
        push(two, url)
    assert _written(fault_proxy, url) == []


@pytest.mark.slow
def test_of_two_pushers_at_once_one_wins_and_the_other_is_told(
    fault_proxy: FaultProxy, store: Path, url: str, tmp_path: Path
) -> None:
    one, two = _copy(store, tmp_path / "one"), _copy(store, tmp_path / "two")
    push(store, url)
    _annotate(one, 2.5)
    _annotate(two, 2.7)
    hold = Fault("hold_answer", path=r"index-000002\.json", method="PUT")
    fault_proxy.spoil(hold)
    ended = _push_in_thread(one, url)
    _wait_until(lambda: hold.done == 1 and layout.index(2) in _objects_told(url))
    with pytest.raises(ConfigError, match=r"index-000002\.json is there and holds something else"):
        push(two, url)
    assert open_store(url).manifest.generation == 1
    hold.released.set()
    assert isinstance(ended.get(timeout=60), PushResult)
    assert open_store(url).annotations("a").events[0].end_us == 2_500_000
    assert not verify(url).faults


@pytest.mark.slow
def test_a_commit_that_comes_late_changes_nothing(
    fault_proxy: FaultProxy, store: Path, url: str, tmp_path: Path
) -> None:
    local = _copy(store, tmp_path / "store")
    push(local, url)
    _annotate(local, 2.5)
    earlier = _copy(local, tmp_path / "earlier")
    _annotate(local, 2.7)
    hold = Fault("hold", path=r"store\.json", method="PUT")
    fault_proxy.spoil(hold)
    ended = _push_in_thread(earlier, url)
    _wait_until(lambda: hold.done == 1)
    push(local, url)
    hold.released.set()
    error = ended.get(timeout=60)
    assert isinstance(error, LaughstoreError)
    assert "store.json: another push was first" in str(error)
    assert open_store(url).manifest.generation == 3
    assert open_shards(f"{url}/shards").generation == 3
    assert not verify(url).faults


def _push_in_thread(store: Path, url: str) -> "queue.SimpleQueue[PushResult | Exception]":
    ended: queue.SimpleQueue[PushResult | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put(push(store, url))
        except Exception as error:
            ended.put(error)

    threading.Thread(target=run, daemon=True).start()
    return ended


def _objects_told(url: str) -> set[str]:
    return set(BucketTarget(url).list())


def test_the_same_store_pushed_twice_at_once_is_fine(
    s3_environment: S3Server, store: Path, url: str
) -> None:
    both = [_push_in_thread(store, url) for _ in range(2)]
    assert all(isinstance(ended.get(timeout=60), PushResult) for ended in both)
    assert not verify(url).faults


def test_a_commit_that_comes_second_is_a_clear_loss(
    fault_proxy: FaultProxy, store: Path, url: str
) -> None:
    fault_proxy.spoil(Fault("status", 99, status=412, path=r"store\.json", method="PUT"))
    with pytest.raises(LaughstoreError, match=r"store\.json: another push was first"):
        push(store, url)
    with pytest.raises(IncompleteStore, match="laughstore push"):
        open_store(url)
    fault_proxy.spoil()
    assert push(store, url).num_sent == 0
    assert not verify(url).faults


# ---- what is rotten here ------------------------------------------------------------------------


def test_a_rotten_file_is_never_published(
    s3_environment: S3Server, store: Path, url: str, tmp_path: Path
) -> None:
    local = _copy(store, tmp_path / "store")
    shard = local / "shards" / open_store(local).index.shards[2].name
    data = shard.read_bytes()
    spoilt = bytearray(data)
    spoilt[len(data) // 2] ^= 4
    for content, error in ((bytes(spoilt), CorruptData), (data[:-1], CorruptData)):
        shard.unlink()
        shard.write_bytes(content)
        with pytest.raises(error, match=rf"{shard.name}: its sha256 is not what the store says"):
            push(local, url)
    shard.unlink()
    with pytest.raises(IncompleteStore, match=rf"{shard.name} is missing"):
        push(local, url)
    objects = _objects(s3_environment, url)
    assert f"shards/{shard.name}" not in objects
    assert layout.STORE_JSON not in objects
    shard.write_bytes(data)
    assert push(local, url).num_there > 0
    assert not verify(url).faults


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileToSend:
    """A file that is sent in three parts, in the folder `tmp_path`."""
    monkeypatch.setattr(upload, "ONE_REQUEST_BYTES", 1 << 20)
    monkeypatch.setattr(upload, "_PART_BYTES", 5 << 20)
    data = np.random.default_rng(1).bytes(11 << 20)
    (tmp_path / "large.tar").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return FileToSend("shards/large.tar", "large.tar", len(data), digest)


def test_large_files_go_in_parts_that_are_repeated(
    fault_proxy: FaultProxy, s3_server: S3Server, large: FileToSend, url: str, tmp_path: Path
) -> None:
    fault_proxy.spoil(
        Fault("status", 2, path="partNumber=2", method="PUT"),
        Fault("cut_upload", 1, path="partNumber=3", method="PUT"),
    )
    target, sent = BucketTarget(url), []
    target.put_file(LocalFolder(tmp_path), large, sent.append)
    assert _objects(s3_server, url)[large.path] == (tmp_path / "large.tar").read_bytes()
    assert sum(sent) == large.num_bytes
    assert fault_proxy.count("PUT", "partNumber=2") == 3
    assert target.is_same(LocalFolder(tmp_path), large, target.list()[large.path])


def test_parts_of_a_large_file_that_fails_or_rots_are_given_up(
    fault_proxy: FaultProxy, s3_server: S3Server, large: FileToSend, url: str, tmp_path: Path
) -> None:
    target = BucketTarget(url)
    fault_proxy.spoil(Fault("status", 999, path="partNumber=2", method="PUT"))
    with pytest.raises(Unreachable, match=r"large\.tar: the server answers 503"):
        target.put_file(LocalFolder(tmp_path), large, lambda _: None)
    fault_proxy.spoil()
    with (tmp_path / "large.tar").open("r+b") as file:
        file.seek(10 << 20)
        file.write(b"rotten")
    with pytest.raises(CorruptData, match=r"large\.tar: its sha256"):
        target.put_file(LocalFolder(tmp_path), large, lambda _: None)
    assert _objects(s3_server, url) == {}
    assert b"<UploadId>" not in s3_server.request("GET", "/laughter?uploads")
    assert fault_proxy.count("DELETE", "uploadId=") == 1


# ---- what goes wrong on the way -----------------------------------------------------------------


def test_storms_and_cut_uploads_are_ridden_out(
    fault_proxy: FaultProxy, store: Path, url: str
) -> None:
    fault_proxy.spoil(
        Fault("status", 3, path=r"\.tar", method="PUT"),
        Fault("cut_upload", 3, path=r"\.tar", method="PUT"),
        Fault("lost_answer", 2, path=r"units/", method="PUT"),
        Fault("lost_answer", 1, path=r"plans/", method="PUT"),
        Fault("lost_answer", 1, path=r"store\.json", method="PUT"),
        Fault("cut_upload", 1, path=r"index\.json", method="PUT"),
        Fault("status", 2, path="list-type"),
    )
    push(store, url)
    assert all(fault.done == fault.times for fault in fault_proxy.faults)
    assert not verify(url).faults


def test_a_bucket_that_stays_away_is_told_in_one_line_without_secrets(
    fault_proxy: FaultProxy, s3_server: S3Server, store: Path, url: str
) -> None:
    for status, path in ((503, r"\.tar"), (403, r"\.tar"), (403, "list-type"), (500, "units/")):
        fault_proxy.spoil(Fault("status", 9999, status=status, path=path, method=None))
        with pytest.raises(Unreachable) as caught:
            push(store, url)
        words = str(caught.value)
        assert str(status) in words
        assert url in words
        assert "\n" not in words
        assert s3_server.access_key_id not in words
        assert s3_server.secret_access_key not in words
        with pytest.raises((IncompleteStore, Unreachable)):
            open_store(url)
    with pytest.raises(NotFound, match="bucket that does not exist"):
        push(store, "s3://no-such-bucket/x")


# ---- killed -------------------------------------------------------------------------------------


def _start(program: list[str], proxy: FaultProxy, s3_server: S3Server) -> "subprocess.Popen[str]":
    environment = os.environ | s3_server.environment(proxy.url) | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


MOMENTS: dict[str, tuple[str, FaultKind, bool]] = {
    "plan": (r"plans/", "hold", False),
    "first data": (r"shards/train-000000", "hold", False),
    "last data": (r"codes\.zarr/.*/c/", "hold", False),
    "units": (r"units/", "hold", False),
    "index": (r"index-\d+\.json", "hold", False),
    "generation": (r"generations/", "hold", False),
    "commit": (r"store\.json", "hold", False),
    "committed": (r"store\.json", "hold_answer", True),
    "current index": (r"shards/index\.json", "hold", True),
}
"""What is being written when the push is killed; whether the commit counts."""
_PROGRAM = "import sys; from laughstore.remote.push import push; push(sys.argv[1], sys.argv[2])"


def _kill_at(moment: str, store: Path, url: str, proxy: FaultProxy, s3_server: S3Server) -> None:
    path, kind, _ = MOMENTS[moment]
    proxy.spoil(Fault(kind, 99, path=path, method="PUT"))
    process = _start(["-c", _PROGRAM, str(store), url], proxy, s3_server)
    _wait_until(lambda: proxy.faults[0].done > 0)
    process.kill()
    process.communicate()
    proxy.spoil()


@pytest.mark.parametrize(
    "moment",
    [pytest.param(name, marks=() if name == "last data" else pytest.mark.slow) for name in MOMENTS],
)
def test_a_killed_push_shows_nothing_or_everything_and_goes_on(
    fault_proxy: FaultProxy, s3_server: S3Server, store: Path, url: str, moment: str
) -> None:
    _kill_at(moment, store, url, fault_proxy, s3_server)
    if MOMENTS[moment][2]:
        assert open_store(url).frames("a").tobytes() == open_store(store).frames("a").tobytes()
    else:
        with pytest.raises(IncompleteStore):
            open_store(url)
    push(store, url)
    assert not verify(url).faults
    assert all(
        (store / path).read_bytes() == data for path, data in _objects(s3_server, url).items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["index", "generation", "commit", "committed", "current index"])
def test_a_killed_push_of_a_second_generation_shows_the_first_or_the_second(
    fault_proxy: FaultProxy,
    s3_server: S3Server,
    store: Path,
    url: str,
    tmp_path: Path,
    moment: str,
) -> None:
    local = _copy(store, tmp_path / "store")
    push(local, url)
    _annotate(local, 2.5)
    _kill_at(moment, local, url, fault_proxy, s3_server)
    found = open_store(url)
    assert found.manifest.generation == 1 + MOMENTS[moment][2]
    assert found.frames("a").tobytes() == open_store(store).frames("a").tobytes()
    assert {fault.path for fault in verify(url).faults} <= {layout.CURRENT_INDEX}
    push(local, url)
    assert verify(url).generations == (2, 1)
    assert not verify(url).faults


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_push_that_is_stopped_says_how_to_go_on(
    fault_proxy: FaultProxy,
    s3_server: S3Server,
    store: Path,
    url: str,
    number: signal.Signals,
    code: int,
) -> None:
    fault_proxy.spoil(Fault("hold", 99, path=r"units/", method="PUT"))
    program = ["-m", "laughstore", "push", str(store), url, "--jobs", "2"]
    process = _start(program, fault_proxy, s3_server)
    _wait_until(lambda: fault_proxy.faults[0].done > 0)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert out == ""
    assert f"laughstore push {store} {url} --jobs 2" in err
    assert "Traceback" not in err


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def said(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return said


def test_the_command_pushes_and_says_what_comes_next(
    s3_environment: S3Server, store: Path, url: str, said
) -> None:
    code, out, _ = said("push", store, url, "--dry-run", "--jobs", "4")
    assert code == 0
    assert "would be sent: " in out
    assert f"next: laughstore push {store} {url} --jobs 4" in out
    code, out, _ = said("push", store, url, "--json")
    report = json.loads(out)
    assert (code, report["generation"], report["num_there"]) == (0, 1, 0)
    code, out, _ = said("push", store, f"{url}/", "--zarr-keys")
    assert f"{url}: generation 1" in out
    assert "stored twice" in out
    assert f"next: laughstore inspect {url}" in out
    for command in (("inspect", url), ("inspect", f"{url}/shards"), ("verify", url)):
        code, out, err = said(*command)
        assert code == 0, err
        assert url in out


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("https://host/store", "web server cannot be pushed to"),
        ("ftp://host/store", "give a URL to push to"),
        ("some/folder", "give a URL to push to"),
        ("s3://key:secret@bucket/x", "credentials come from the environment"),
    ],
)
def test_targets_that_cannot_be_written_are_refused(store: Path, said, target, words) -> None:
    code, out, err = said("push", store, target)
    assert (code, out) == (2, "")
    assert words in err
    assert "secret" not in err
    assert err.count("\n") == 1


def test_stores_that_cannot_be_pushed_are_refused(said, tmp_path: Path, url: str) -> None:
    code, _, err = said("push", tmp_path / "none", url)
    assert (code, "does not exist" in err) == (1, True)
    code, _, err = said("push", tmp_path, url)
    assert (code, "build" in err) == (1, True)
    code, _, err = said("push", tmp_path, url, "--jobs", "0")
    assert code == 2
    with pytest.raises(ConfigError, match="folder of this machine"):
        push("s3://laughter/x", url)
