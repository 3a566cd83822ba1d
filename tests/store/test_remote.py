"""Reading over the network: against a real S3 server, web servers and a hub on loopback."""

import contextlib
import json
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from obstore.store import MemoryStore

from laughstore import open_store
from laughstore.errors import ConfigError, CorruptData, LaughstoreError, NotFound, Unreachable
from laughstore.folders import LocalFolder, open_folder
from laughstore.remote.client import RemoteClient
from laughstore.remote.errors import explain
from laughstore.remote.folder import Patience, RemoteFolder, open_url
from laughstore.sealed import read_sealed, read_small
from laughstore.zarr_folder import ZarrFolder
from tests.stores import Episode, random_features, write_store

from .loopback import Fault, FaultProxy, FileServer, HubServer, LoopbackServer, _Handler
from .servers import S3Server
from .tls import serve_tls

HASTY = Patience(
    max_retries=3,
    total_s=20.0,
    connect_s=5.0,
    silence_s=10.0,
    request_s=15.0,
    first_pause_s=0.01,
    longest_pause_s=0.05,
)
"""Asks again at once, and is patient with a busy machine."""
ALERT = replace(HASTY, silence_s=0.4)
"""Notices a server that stalls."""
IMPATIENT = replace(HASTY, total_s=0.6, silence_s=0.25, request_s=0.5)
"""Gives up soon."""
DATA = np.random.default_rng(3).bytes(300_000)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module", autouse=True)
def _objects(s3_server: S3Server) -> None:
    s3_server.put("remote/shards/a.tar", DATA)
    s3_server.put("remote/store.json", b"{}")


@pytest.fixture
def s3(fault_proxy: FaultProxy) -> RemoteFolder:
    return open_url("s3://laughter/remote", HASTY)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    (root / "store/shards").mkdir(parents=True)
    (root / "store/shards/a.tar").write_bytes(DATA)
    (root / "store/store.json").write_bytes(b"{}")
    return root


# ---- what a folder promises -------------------------------------------------------------------


def test_an_s3_folder_reads_sizes_files_and_ranges(s3: RemoteFolder) -> None:
    shards = s3.child("shards")
    assert shards.size("a.tar") == len(DATA)
    assert shards.read("a.tar") == DATA
    assert shards.read_range("a.tar", 1000, 4096) == DATA[1000:5096]
    assert shards.read_range("a.tar", len(DATA) - 1, 1) == DATA[-1:]
    assert shards.read_range("a.tar", 5, 0) == b""
    assert s3.read("shards/a.tar") == DATA
    assert s3.exists("store.json")
    assert not s3.exists("plan.json")
    parent = shards.parent()
    assert parent is not None
    assert parent.read("store.json") == b"{}"
    assert s3.local is None


def test_the_folder_around_an_opened_url_is_found(s3: RemoteFolder) -> None:
    shards = open_url("s3://laughter/remote/shards", HASTY)
    around = shards.parent()
    assert around is not None
    assert around.describe("store.json") == "s3://laughter/remote/store.json"
    assert around.read("store.json") == b"{}"
    bucket = around.parent()
    assert bucket is not None
    assert bucket.describe() == "s3://laughter"
    assert bucket.parent() is None


def test_a_size_is_asked_for_once(s3: RemoteFolder, fault_proxy: FaultProxy) -> None:
    for _ in range(3):
        assert s3.size("shards/a.tar") == len(DATA)
    assert fault_proxy.count("HEAD") == 1
    s3.read("store.json")
    assert s3.child("shards").size("a.tar") == len(DATA)
    assert s3.size("store.json") == 2
    assert fault_proxy.count("HEAD") == 1


def test_sizes_of_many_files_take_few_requests(
    s3: RemoteFolder, s3_server: S3Server, fault_proxy: FaultProxy
) -> None:
    names = [f"many-{number:06d}.tar" for number in range(40)]
    for number, name in enumerate(names):
        s3_server.put(f"remote/sizes/shards/{name}", b"x" * number)
    s3_server.put("remote/sizes/store.json", b"{}")
    store = open_url("s3://laughter/remote/sizes", HASTY)
    paths = [*(f"shards/{name}" for name in names), "store.json"]
    assert store.sizes(paths) == [*range(40), 2]
    assert fault_proxy.count() == 2
    assert store.child("shards").sizes(names) == list(range(40))
    assert fault_proxy.count() == 2
    with pytest.raises(NotFound, match=r"shards/lost\.tar does not exist"):
        store.sizes(["store.json", "shards/lost.tar"])
    with pytest.raises(NotFound, match=r"sizes/shards/x0\.tar does not exist"):
        store.child("shards").sizes([f"x{number}.tar" for number in range(40)])
    assert open_url("s3://laughter/remote/sizes/shards").sizes(names) == list(range(40))
    # Who may read but not list asks for one after the other.
    fault_proxy.spoil(Fault("status", 99, status=403, path="list-type"))
    bounded = open_url("s3://laughter/remote/sizes/shards", HASTY)
    assert bounded.sizes(names) == list(range(40))


def test_what_is_missing_is_not_found(s3: RemoteFolder) -> None:
    for ask in (s3.size, s3.read, lambda path: s3.read_range(path, 0, 1)):
        with pytest.raises(NotFound, match=r"^s3://laughter/remote/none\.json does not exist$"):
            ask("none.json")
    with pytest.raises(NotFound, match="bucket that does not exist"):
        open_url("s3://no-such-bucket/x", HASTY).read("store.json")


def test_a_file_that_is_too_short_is_corrupt(s3: RemoteFolder) -> None:
    for start, num_bytes in ((len(DATA) - 10, 11), (len(DATA), 1), (10**9, 5)):
        fresh = open_url("s3://laughter/remote/shards", HASTY)
        for _ in range(2):  # with and without a known size
            with pytest.raises(CorruptData, match=r"a\.tar"):
                fresh.read_range("a.tar", start, num_bytes)
            fresh.size("a.tar")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a\0", "s3://x/y", "pipe:id", ""])
def test_unsafe_paths_are_refused_before_any_request(
    s3: RemoteFolder, fault_proxy: FaultProxy, path: str
) -> None:
    for ask in (s3.size, s3.read, s3.exists, s3.child):
        with pytest.raises(CorruptData, match="must not be opened"):
            ask(path)
    assert fault_proxy.count() == 0


def test_many_threads_read_one_folder(s3: RemoteFolder) -> None:
    starts = range(0, len(DATA) - 1000, 7001)
    with ThreadPoolExecutor(8) as threads:
        parts = threads.map(lambda start: s3.read_range("shards/a.tar", start, 1000), starts)
        assert list(parts) == [DATA[start : start + 1000] for start in starts]


# ---- faults -----------------------------------------------------------------------------------

PASSING = [
    Fault("status", 2, status=503),
    Fault("status", 2, status=500),
    Fault("status", 2, status=429),
    Fault("cut", 2),
    Fault("reset", 2),
    Fault("stall", 1),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_passing_faults_are_survived(fault_proxy: FaultProxy, fault: Fault) -> None:
    fault.done = 0
    fault_proxy.spoil(fault)
    s3 = open_url("s3://laughter/remote", ALERT if fault.kind == "stall" else HASTY)
    assert s3.read_range("shards/a.tar", 100, 200_000) == DATA[100:200_100]
    assert fault.done == fault.times
    fault.done = 0
    assert s3.read("shards/a.tar") == DATA
    assert fault.done == fault.times


@pytest.mark.parametrize("kind", ["wrong_range", "short_range"])
def test_an_answer_for_another_range_is_asked_for_again(
    s3: RemoteFolder, fault_proxy: FaultProxy, kind: str
) -> None:
    fault_proxy.spoil(Fault(kind, 2))  # pyright: ignore[reportArgumentType]
    assert s3.read_range("shards/a.tar", 100, 5000) == DATA[100:5100]
    assert fault_proxy.count("GET") == 3
    fault_proxy.spoil(Fault(kind, 99))  # pyright: ignore[reportArgumentType]
    with pytest.raises(Unreachable, match="another range"):
        s3.read_range("shards/a.tar", 100, 5000)


@pytest.mark.parametrize("times", [2, 99])
def test_fewer_bytes_than_promised_are_never_returned(
    s3: RemoteFolder, fault_proxy: FaultProxy, times: int
) -> None:
    fault_proxy.spoil(Fault("short_body", times))
    if times == 2:
        assert s3.read_range("shards/a.tar", 100, 5000) == DATA[100:5100]
        assert fault_proxy.count("GET") == 3
        return
    with pytest.raises(Unreachable, match="4999 of 5000 bytes came"):
        s3.read_range("shards/a.tar", 100, 5000)


LASTING = [
    (Fault("status", 999, status=503, method=None), "503 Service Unavailable, also after 3"),
    (Fault("status", 999, status=429, method=None), "429 Too Many Requests"),
    (Fault("cut", 999), "cut short"),
    (Fault("reset", 999), "cut short"),
    (Fault("stall", 999), "no answer in time|cut short"),
    (Fault("whole_body", 999), "ignores ranges"),
    (Fault("status", 999, status=400), "400 Bad Request"),
    (Fault("status", 999, status=403), r"access denied \(answer 403\)"),
    (Fault("status", 999, status=401), r"access denied \(answer 401\)"),
    (Fault("status", 999, status=301), "another region"),
]


@pytest.mark.parametrize(
    ("fault", "message"), LASTING, ids=lambda x: f"{x.kind}-{x.status}" if x != str(x) else ""
)
def test_lasting_faults_end_in_one_line_and_in_time(
    fault_proxy: FaultProxy, fault: Fault, message: str
) -> None:
    fault.done = 0
    fault_proxy.spoil(fault)
    patience = IMPATIENT if fault.kind == "stall" else HASTY
    s3 = open_url("s3://laughter/remote", patience)
    began_s = time.monotonic()
    with pytest.raises(Unreachable, match=message) as caught:
        s3.read_range("shards/a.tar", 100, 200_000)
    assert time.monotonic() - began_s < 40
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("s3://laughter/remote/shards/a.tar: ")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert fault_proxy.count() <= 20


@pytest.mark.slow
def test_a_server_that_trickles_is_given_up(fault_proxy: FaultProxy) -> None:
    s3 = open_url("s3://laughter/remote", IMPATIENT)
    fault_proxy.spoil(Fault("trickle", 999, seconds=0.1))
    began_s = time.monotonic()
    with pytest.raises(Unreachable):
        s3.read("shards/a.tar")
    assert time.monotonic() - began_s < 40


def test_nobody_there_is_unreachable(monkeypatch: pytest.MonkeyPatch, s3: RemoteFolder) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="no connection, also after 3 retries; try again later"):
        open_url("s3://laughter/remote", HASTY).read("store.json")


def test_no_credentials_are_told_in_time(monkeypatch: pytest.MonkeyPatch, s3: RemoteFolder) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="no credentials in the environment"):
        open_url("s3://laughter/remote", HASTY).read("store.json")


def test_an_object_replaced_while_open_is_told(s3: RemoteFolder, s3_server: S3Server) -> None:
    s3_server.put("remote/changing.bin", b"one")
    assert s3.read("changing.bin") == b"one"
    s3_server.put("remote/changing.bin", b"three")
    with pytest.raises(CorruptData, match="replaced while open"):
        s3.read_range("changing.bin", 0, 2)
    assert s3.read("changing.bin") == b"three"
    assert s3.read_range("changing.bin", 0, 2) == b"th"


def test_sizes_that_a_listing_tells_reach_whoever_holds_what_is_known() -> None:
    """Threads that ask for other sizes meanwhile."""
    known = {"a/3": 33}
    client = RemoteClient(
        "memory:",
        "memory:",
        connect=lambda _: MemoryStore(),
        patience=HASTY,
        list_folder=lambda _, folder: {f"{folder}/{number}": number for number in range(20)},
        sizes=known,
    )
    assert client.sizes_of([f"a/{number}" for number in range(10)])[2:5] == [2, 33, 4]
    assert known == client.sizes
    assert len(known) == 20


def test_ctrl_c_is_not_held_up_by_a_server_that_stalls(
    s3: RemoteFolder, fault_proxy: FaultProxy
) -> None:
    patient = open_url("s3://laughter/remote", Patience(silence_s=8.0))
    fault_proxy.spoil(Fault("stall", 999))
    alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    began_s = time.monotonic()
    alarm.start()
    with pytest.raises(KeyboardInterrupt):
        patient.read("shards/a.tar")
    assert time.monotonic() - began_s < 6


# ---- hostile servers --------------------------------------------------------------------------

OFFERED = 256 << 20


@pytest.mark.parametrize(
    ("length", "told"),
    [("stated", "more than 200 bytes came"), ("chunked", "Content-Length Header missing")],
)
def test_a_body_longer_than_promised_is_broken_off(length: str, told: str) -> None:
    sent = 0

    def answer(request: _Handler) -> None:
        nonlocal sent
        if request.command == "HEAD":
            request.reply(200, bytes(200))
            return
        request.send_response(206)
        request.send_header("Content-Range", "bytes 0-199/200")
        if length == "stated":
            request.send_header("Content-Length", str(OFFERED))
        else:
            request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        piece = bytes(1 << 20)
        for _ in range(OFFERED // len(piece)):
            head, end = (b"100000\r\n", b"\r\n") if length == "chunked" else (b"", b"")
            request.wfile.write(head + piece + end)
            sent += len(piece)

    with LoopbackServer(answer) as server:
        folder = open_url(f"{server.url}/store", HASTY)
        with pytest.raises(Unreachable, match=told):
            read_sealed(folder, "store.json")
    assert sent < OFFERED / 2  # of three attempts together; the rest is what sockets hold


def test_a_file_that_grows_between_size_and_reading_is_not_taken() -> None:
    """HEAD promises 200 bytes, GET has a terabyte."""

    def answer(request: _Handler) -> None:
        if request.command == "HEAD":
            request.reply(200, bytes(200))
            return
        request.send_response(200)
        request.send_header("Content-Length", str(1 << 40))
        request.end_headers()
        with contextlib.suppress(OSError):
            while True:
                request.wfile.write(bytes(1 << 20))

    with LoopbackServer(answer) as server:
        folder = open_url(f"{server.url}/store", HASTY)
        with pytest.raises(LaughstoreError, match="ignores ranges"):
            read_sealed(folder, "store.json")
        with pytest.raises(CorruptData, match="has 1099511627776 bytes, more than any file"):
            folder.read("store.json")
        served = ZarrFolder(folder, {"zarr.json": "zarr.json"}, max_bytes=1000)
        with pytest.raises(LaughstoreError, match="ignores ranges"):
            served.get_sync("zarr.json")


def test_an_array_is_what_was_checked_whatever_a_server_sends_later(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", [Episode("one")], random_features(64))
    num_asked = 0

    def answer(request: _Handler) -> None:
        nonlocal num_asked
        path = tmp_path / request.path.lstrip("/")
        if path.name == "zarr.json":
            num_asked += request.command == "GET"
            if num_asked > 1:
                path = _file_with(tmp_path, path.read_bytes().replace(b"[300,64]", b"[999,64]"))
        request.reply_file(path)

    with LoopbackServer(answer) as server:
        opened = open_store(f"{server.url}/store")
        assert opened.array("one").shape == (300, 64)
    assert open_store(store).array("one").shape == (300, 64)


def _file_with(folder: Path, data: bytes) -> Path:
    assert b"[999,64]" in data
    (folder / "other").write_bytes(data)
    return folder / "other"


def test_empty_files_are_read(files: Path) -> None:
    (files / "empty.json").touch()
    with FileServer(files) as server:
        folder = open_url(server.url, HASTY)
        assert read_small(folder, "empty.json") == b""
        empty = ZarrFolder(folder, {"empty": "empty.json"}).get_sync("empty")
        assert empty is not None
        assert empty.to_bytes() == b""
    assert read_small(LocalFolder(files), "empty.json") == b""


# ---- Ctrl-C -----------------------------------------------------------------------------------

INTERRUPTED = {
    "sizes": """
folder = open_url(url)
print("begun", flush=True)
folder.sizes([f"shards/{n}.tar" for n in range(40)])
""",
    "blocks": """
store = open_store(url)
store.index.block_crc32c, store.index.block_bytes, store.index.shard_bytes
print("begun", flush=True)
store.frames("one")
""",
    "verify": """
print("begun", flush=True)
verify(url)
""",
}


@pytest.mark.parametrize("what", INTERRUPTED)
def test_ctrl_c_ends_a_process_that_waits_for_a_server(tmp_path: Path, what: str) -> None:
    """Threads that read must not be waited for when the interpreter exits."""
    episode, dim = Episode("one", num_frames=2400), 1024  # large enough for threads
    write_store(tmp_path / "store", [episode], random_features(dim), dim=dim, shard_frames=256)
    asked = threading.Event()

    def answer(request: _Handler) -> None:
        path = request.path.removeprefix("/store/")
        if ".tar" not in path:
            request.reply_file(tmp_path / "store" / path)
            return
        asked.set()
        server.stopping.wait(60)

    with LoopbackServer(answer) as server:
        script = (
            "from laughstore import open_store\n"
            "from laughstore.integrity.verify import verify\n"
            "from laughstore.remote.folder import open_url\n"
            f"url = {server.url!r} + '/store'\n{INTERRUPTED[what]}"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"begun\n"
                assert asked.wait(30)
                time.sleep(0.3)  # the other threads are waiting too
                process.send_signal(signal.SIGINT)
                began_s = time.monotonic()
                _, said = process.communicate(timeout=15)
            finally:
                process.kill()
        assert time.monotonic() - began_s < 5
        assert b"KeyboardInterrupt" in said
        assert process.returncode != 0


# ---- other processes --------------------------------------------------------------------------


def test_a_forked_process_is_told_instead_of_waiting_for_ever(s3: RemoteFolder) -> None:
    assert s3.exists("store.json")
    process = os.fork()
    if process == 0:
        try:
            s3.read("store.json")
        except ConfigError as error:
            os._exit(0 if "spawn" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_a_folder_goes_to_another_process(s3: RemoteFolder) -> None:
    copy = pickle.loads(pickle.dumps(s3.child("shards")))
    assert copy.describe("a.tar") == "s3://laughter/remote/shards/a.tar"
    assert copy.read_range("a.tar", 1, 10) == DATA[1:11]


@pytest.mark.slow
def test_spawned_workers_read(s3: RemoteFolder) -> None:
    assert s3.exists("store.json")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(s3.child("shards").size, ["a.tar"] * 4) == [len(DATA)] * 4


# ---- the web ----------------------------------------------------------------------------------


def test_a_web_folder_reads_sizes_files_and_ranges(files: Path) -> None:
    with FileServer(files) as server:
        store = open_url(f"{server.url}/store/", HASTY)
        assert store.read("store.json") == b"{}"
        assert store.child("shards").size("a.tar") == len(DATA)
        assert store.sizes(["store.json", "shards/a.tar"] * 20) == [2, len(DATA)] * 20
        assert store.read_range("shards/a.tar", 7, 70_000) == DATA[7:70_007]
        assert not store.exists("plan.json")
        assert store.describe("store.json") == f"{server.url}/store/store.json"
        around = store.child("shards").parent()
        assert around is not None
        assert around.size("store.json") == 2
        around = open_url(f"{server.url}/store/shards").parent()
        assert around is not None
        assert around.describe() == f"{server.url}/store"


@pytest.mark.parametrize("kind", ["cut", "reset", "stall"])
def test_a_body_cut_without_an_etag_is_asked_for_again(files: Path, kind: str) -> None:
    with FileServer(files) as server, FaultProxy(server.port) as proxy:
        assert isinstance(proxy, FaultProxy)
        proxy.spoil(Fault(kind, 2))  # pyright: ignore[reportArgumentType]
        store = open_url(f"{proxy.url}/store", ALERT if kind == "stall" else HASTY)
        assert store.read_range("shards/a.tar", 7, 70_000) == DATA[7:70_007]
        assert proxy.faults[0].done == 2


def test_a_server_without_ranges_is_detected(files: Path) -> None:
    with FileServer(files, ranges=False) as server:
        store = open_url(f"{server.url}/store", HASTY)
        assert store.read("shards/a.tar") == DATA
        with pytest.raises(Unreachable, match="ignores ranges"):
            store.read_range("shards/a.tar", 0, 10)


def test_https_checks_the_certificate(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with FileServer(files, tag=True) as server:
        authority = serve_tls(server, tmp_path)
        url = server.url.replace("http", "https")
        with pytest.raises(Unreachable, match="TLS certificate is not trusted"):
            open_url(f"{url}/store", HASTY).read("store.json")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert open_url(f"{url}/store", HASTY).read("store.json") == b"{}"
        monkeypatch.delenv("SSL_CERT_FILE")
        for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        assert open_url("s3://store", HASTY).read("store.json") == b"{}"


def test_plain_http_is_for_this_machine_only() -> None:
    for url in ("http://example.org/store", "http://10.0.0.1/x", "http://127.0.0.1.evil.org/x"):
        with pytest.raises(ConfigError, match="this machine only"):
            open_url(url)
    assert open_url("http://[::1]:80/x").describe() == "http://[::1]:80/x"


# ---- URLs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["pipe:touch canary", "pipe://x", "file:///etc/passwd", "ftp://h/x", "az://b/x", "//h/x", ""],
)
def test_other_kinds_of_urls_are_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigError, match=r"s3://, gs://, hf://, https://|spaces") as caught:
        open_url(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///x",
        "s3://bucket/../other",
        "s3://bucket//x",
        "s3://bucket/a/%2e%2e/b",
        "s3://bucket/x?versionId=3",
        "s3://bucket/x#y",
        "s3://bucket:80/x",
        "https://",
        "https://host/x#y",
        "https://host:port/x",
        "https://ho st/x",
        "https://host/a\\b",
        "https://host/a\nb",
        "hf://",
        "hf://only-one",
        "hf://datasets/owner",
        "hf://datasets/owner/name@/x",
        "hf://datasets/owner/name/x?a=b",
        "hf://datasets/owner/name/x@y",
    ],
)
def test_malformed_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        open_url(url)


def test_open_folder_opens_urls() -> None:
    assert repr(open_folder("s3://b/x/")) == "RemoteFolder('s3://b/x')"
    assert open_folder("gs://b").describe("store.json") == "gs://b/store.json"


def test_a_plain_endpoint_on_another_machine_must_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://0.0.0.0:9")
    with pytest.raises(ConfigError, match="AWS_ALLOW_HTTP=true"):
        open_url("s3://b/x", HASTY).read("store.json")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with pytest.raises(Unreachable, match="no connection"):
        open_url("s3://b/x", HASTY).read("store.json")


def test_certificates_that_cannot_be_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://minio.invalid")
    with pytest.raises(ConfigError, match="AWS_CA_BUNDLE"):
        open_url("s3://b/x", HASTY).read("store.json")


def test_a_google_bucket_is_read(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "bucket").symlink_to(files)
    with FileServer(files, tag=True) as server:
        monkeypatch.setenv("GOOGLE_BASE_URL", server.url)
        monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
        store = open_url("gs://bucket/store", HASTY)
        assert store.read_range("shards/a.tar", 3, 30) == DATA[3:33]
        assert not store.exists("plan.json")


# ---- the hub ----------------------------------------------------------------------------------


@pytest.fixture
def hub(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    from huggingface_hub import constants
    from huggingface_hub.utils._http import reset_sessions

    with HubServer({"datasets/lab/laughs": files}, COMMIT, token="hf_canaryCANARYcanary") as server:
        assert isinstance(server, HubServer)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_canaryCANARYcanary")
        reset_sessions()
        yield server
        reset_sessions()


def test_a_hub_folder_is_read_at_one_commit(hub: HubServer) -> None:
    store = open_url("hf://datasets/lab/laughs/store", HASTY)
    assert hub.count() == 0
    assert store.read("store.json") == b"{}"
    assert store.size("shards/a.tar") == len(DATA)
    assert store.read_range("shards/a.tar", 9, 90_000) == DATA[9:90_009]
    assert not store.exists("plan.json")
    assert hub.count(path="/resolve/") == hub.count(path=f"/resolve/{COMMIT}/store/")
    around = open_url("hf://datasets/lab/laughs@v1/store", HASTY).parent()
    assert around is not None
    assert around.describe() == "hf://datasets/lab/laughs@v1"
    assert around.parent() is None
    assert around.read("store/store.json") == b"{}"


def test_sizes_of_many_files_of_a_hub_take_few_requests(hub: HubServer, files: Path) -> None:
    names = [f"many-{number}.tar" for number in range(30)]
    for number, name in enumerate(names):
        (files / "store/shards" / name).write_bytes(b"x" * (number + 1))
    store = open_url("hf://datasets/lab/laughs/store", HASTY)
    assert store.child("shards").sizes(names) == list(range(1, 31))
    assert hub.count(path="/tree/") == 1
    assert hub.count(path="/resolve/") == 0
    assert open_url("hf://datasets/lab/laughs/store/shards", HASTY).sizes(names) == list(
        range(1, 31)
    )


def test_the_login_goes_to_the_hub_and_not_where_it_redirects(hub: HubServer) -> None:
    open_url("hf://datasets/lab/laughs/store", HASTY).read("store.json")
    assert all("authorization" in request.headers for request in hub.requests)
    assert hub.files.requests
    assert not any("authorization" in request.headers for request in hub.files.requests)


def test_what_the_hub_does_not_know(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("datasets/lab/other/store", "datasets/lab/laughs@v9/store"):
        with pytest.raises(NotFound, match="no such repository or revision"):
            open_url(f"hf://{address}", HASTY).read("store.json")
    monkeypatch.setenv("HF_TOKEN", "hf_wrongWRONG")
    with pytest.raises(LaughstoreError, match=r"login|log in") as caught:
        open_url("hf://datasets/lab/laughs/store", HASTY).read("store.json")
    assert "hf_wrongWRONG" not in str(caught.value)


def test_a_hub_told_to_stay_offline_is_not_asked(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        open_url("hf://datasets/lab/laughs/store", HASTY).read("store.json")
    assert hub.count() == 0


def test_a_hub_that_fails_for_a_while_is_asked_again(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with FaultProxy(hub.port) as proxy:
        assert isinstance(proxy, FaultProxy)
        monkeypatch.setattr(constants, "ENDPOINT", proxy.url)
        proxy.spoil(Fault("status", 2))
        assert open_url("hf://datasets/lab/laughs/store", HASTY).read("store.json") == b"{}"
        proxy.spoil(Fault("status", 999))
        with pytest.raises(Unreachable, match="503"):
            open_url("hf://datasets/lab/laughs/store", HASTY).read("store.json")


# ---- secrets ----------------------------------------------------------------------------------


def test_secrets_are_nowhere_in_what_is_said(
    fault_proxy: FaultProxy,
    s3_server: S3Server,
    hub: HubServer,
    files: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    canaries = [s3_server.access_key_id, s3_server.secret_access_key, "hf_canaryCANARYcanary"]
    canaries += ["userCanary", "passCanary", "sigCanary"]
    said: list[str] = []

    def hear(folder: RemoteFolder) -> None:
        said.extend([repr(folder), str(folder), folder.describe("x"), repr(vars(folder))])
        said.append(repr(folder.child("shards")))
        for ask in (folder.size, folder.read, lambda path: folder.read_range(path, 10**9, 5)):
            for path in ("shards/a.tar", "none"):
                try:
                    ask(path)
                except LaughstoreError as error:
                    said.extend([str(error), repr(error), repr(error.__cause__)])
                    said.append(repr(error.__context__))
        said.append(repr(vars(folder)))

    for status in (200, 403, 401, 503, 400, 301):
        times = 0 if status == 200 else 999
        fault_proxy.spoil(Fault("status", times, status=status, method=None))
        hear(open_url("s3://laughter/remote", HASTY))
        with FileServer(files) as server, FaultProxy(server.port) as proxy:
            assert isinstance(proxy, FaultProxy)
            proxy.spoil(Fault("status", times, status=status, method=None))
            address = proxy.url.replace("//", "//userCanary:passCanary@")
            hear(open_url(f"{address}/store?sig=sigCanary", HASTY))
    hear(open_url("hf://datasets/lab/laughs/store", HASTY))
    for url in ("s3://userCanary:passCanary@b/x", "s3://b/x?sig=sigCanary", "http://sigCanary@h/x"):
        with pytest.raises(ConfigError) as caught:
            open_url(url)
        said.append(str(caught.value))
    said.append(caplog.text)
    said.extend(capfd.readouterr())
    for canary in canaries:
        assert not any(canary in words for words in said), canary
    assert len(said) > 100


def test_words_of_a_client_that_nobody_foresaw_are_stripped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary+secret/canary")
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCANARY")
    words = "odd: https://u:p@h/x?sig=sigCanary canary+secret/canary hf_canaryCANARY end\nmore"
    error = explain(RuntimeError(words)).as_error("s3://b/x")
    assert str(error) == ("s3://b/x: RuntimeError: odd: (address) *** *** end; try again later")


def test_user_and_query_of_a_url_reach_its_server(files: Path) -> None:
    with FileServer(files, user="Basic bWU6cGFzcw==") as server:
        store = open_url(f"{server.url.replace('//', '//me:pass@')}/store?sig=abc", HASTY)
        assert store.read("store.json") == b"{}"
        assert server.requests[0].path == "/store/store.json?sig=abc"
        with pytest.raises(Unreachable, match="access denied"):
            open_url(f"{server.url}/store", HASTY).read("store.json")


# ---- what it costs ----------------------------------------------------------------------------


def test_importing_laughstore_loads_no_client() -> None:
    program = "import laughstore, laughstore.folders, sys; print(list(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = json.loads(run.stdout.decode().replace("'", '"'))
    assert not {"obstore", "huggingface_hub", "laughstore.remote.folder"} & set(loaded)
