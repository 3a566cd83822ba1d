"""Pushing to imitations, on loopback, of Google's bucket server and of a model hub.

They know the few requests that a push makes, as the documentation of both describes them; a push
against the real ones is not among the tests.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from laughstore import layout
from laughstore.commit import commit_annotations
from laughstore.errors import ConfigError, CorruptData, LaughstoreError, NotFound
from laughstore.integrity.verify import verify
from laughstore.remote import hub_upload, upload
from laughstore.remote.client import Patience
from laughstore.remote.push import push
from laughstore.store import open_store
from tests.stores import Episode, laugh, random_features, write_store

from .loopback import FaultProxy, LoopbackServer, _Handler

HASTY = Patience(max_retries=3, total_s=20.0, first_pause_s=0.01, longest_pause_s=0.05)
EPISODE = Episode("a", "train", 300, [laugh(1, 2)])
TOKEN = "hf_canaryCANARYcanary"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "UPLOAD_PATIENCE", HASTY)
    monkeypatch.setattr(hub_upload, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "store", [EPISODE], random_features(16), dim=16, shard_frames=256)


def _annotate(store: Path) -> None:
    recording = open_store(store).index.recording("a").id
    commit_annotations(store, {recording: replace(EPISODE.annotations, events=(laugh(1, 2.5),))})


# ---- Google's buckets ---------------------------------------------------------------------------


@dataclass
class _Object:
    data: bytes
    generation: int
    metadata: dict[str, str]


class GcsServer(LoopbackServer):
    """The XML interface of Google's bucket server, for one bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, _Object] = {}
        self._last = 1000
        super().__init__(self._reply)

    def _reply(self, request: _Handler) -> None:
        data = request.body()
        parts = urlsplit(request.path)
        _, bucket, *rest = unquote(parts.path).split("/", 2)
        key = rest[0] if rest else ""
        if bucket != "laughs":
            request.reply(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        elif not key:
            self._list(request, parse_qs(parts.query).get("prefix", [""])[0])
        elif request.command == "PUT":
            self._put(request, key, data)
        elif key not in self.objects:
            request.reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._get(request, self.objects[key])

    def _put(self, request: _Handler, key: str, data: bytes) -> None:
        there = self.objects.get(key)
        wanted = request.headers.get("x-goog-if-generation-match")
        if wanted is not None and int(wanted) != (there.generation if there else 0):
            request.reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        source = request.headers.get("x-goog-copy-source")
        self._last += 1
        if source is not None:
            found = self.objects[unquote(source).partition("/")[2]]
            self.objects[key] = replace(found, generation=self._last)
        else:
            named = {k.lower(): v for k, v in request.headers.items()}
            metadata = {k: v for k, v in named.items() if k.startswith("x-goog-meta-")}
            self.objects[key] = _Object(data, self._last, metadata)
        request.reply(200, ETag=f'"{self._last}"', x_goog_generation=str(self._last))

    def _get(self, request: _Handler, found: _Object) -> None:
        about = {
            "ETag": f'"{found.generation}"',
            "x_goog_generation": str(found.generation),
            "Last_Modified": formatdate(usegmt=True),
            **found.metadata,
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if wanted is None:
            request.reply(200, found.data, **about)
            return
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(found.data))
        part = f"bytes {start}-{stop - 1}/{len(found.data)}"
        request.reply(206, found.data[start:stop], Content_Range=part, **about)

    def _list(self, request: _Handler, prefix: str) -> None:
        inner = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(item.data)}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f'<ETag>"{item.generation}"</ETag></Contents>'
            for key, item in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        request.reply(200, f"<ListBucketResult>{inner}</ListBucketResult>".encode())


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsServer]:
    with GcsServer() as server:
        assert isinstance(server, GcsServer)
        monkeypatch.setenv("GOOGLE_BASE_URL", server.url)
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", TOKEN)
        yield server


def test_a_store_is_pushed_to_google_and_pushed_on(gcs: GcsServer, store: Path) -> None:
    url = "gs://laughs/deep/store"
    first = push(store, url)
    assert first.num_there == 0
    assert not verify(url).faults
    _annotate(store)
    second = push(store, url, zarr_keys=True)
    assert second.num_sent == 4
    assert second.num_copied == len(open_store(store).index.shards)
    assert open_store(url).manifest.generation == 2
    assert open_store(url).frames("a").tobytes() == open_store(store).frames("a").tobytes()
    again = push(store, url, zarr_keys=True)
    assert (again.num_sent, again.num_copied) == (0, 0)
    assert not verify(url).faults


def test_google_keeps_two_pushers_apart(gcs: GcsServer, store: Path) -> None:
    url = "gs://laughs/store"
    push(store, url)
    _annotate(store)
    changed = gcs.objects["store/store.json"]
    target = upload.BucketTarget(url)
    found = target.read_version(layout.STORE_JSON)
    assert found is not None
    changed.generation += 1  # somebody replaced it
    assert not target.replace(layout.STORE_JSON, b"other", found[1])
    assert not target.replace(layout.STORE_JSON, b"other", None)
    found = target.read_version(layout.STORE_JSON)
    assert found is not None
    assert target.replace(layout.STORE_JSON, b"other", found[1])


# ---- the hub ------------------------------------------------------------------------------------


@dataclass
class _Commit:
    files: dict[str, bytes]
    large: set[str] = field(default_factory=set)


class HubRepository(LoopbackServer):
    """The requests of a hub that a push and a reader make, for one repository of data."""

    name = "lab/laughs"

    def __init__(self) -> None:
        self.commits = {self._oid(0): _Commit({"README.md": b"hello"})}
        self.stored: dict[str, bytes] = {}
        self.summaries: list[list[str]] = []
        super().__init__(self._reply)

    @staticmethod
    def _oid(number: int) -> str:
        return hashlib.sha1(b"%d" % number).hexdigest()

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: dict[str, bytes], large: set[str] | None = None) -> str:
        before = self.commits[self.head]
        after = _Commit(before.files | files, before.large | (large or set()))
        self.commits[self._oid(len(self.commits))] = after
        return self.head

    def _reply(self, request: _Handler) -> None:
        data = request.body()
        path = unquote(urlsplit(request.path).path)
        api, plain = f"/api/datasets/{self.name}", f"/datasets/{self.name}"
        if path.startswith("/stored/"):
            self.stored[path.rpartition("/")[2]] = data
            request.reply(200)
        elif request.headers.get("Authorization") != f"Bearer {TOKEN}":
            request.reply(401, b"", X_Error_Message="Invalid username or password.")
        elif path == f"{plain}.git/info/lfs/objects/batch":
            self._batch(request, json.loads(data))
        elif path == f"{api}/preupload/main":
            self._answer(request, {"files": [self._mode(x) for x in json.loads(data)["files"]]})
        elif path == f"{api}/commit/main":
            self._commit(request, [json.loads(line) for line in data.splitlines() if line])
        elif path in (api, f"{api}/revision/main"):
            self._answer(request, {"id": self.name, "sha": self.head, "siblings": [], "tags": []})
        elif path.startswith(f"{api}/tree/"):
            commit, _, folder = path.removeprefix(f"{api}/tree/").partition("/")
            self._tree(request, self.commits[commit], folder)
        elif path.startswith(f"{plain}/resolve/"):
            commit, _, name = path.removeprefix(f"{plain}/resolve/").partition("/")
            self._resolve(request, self.commits[commit].files.get(name))
        else:
            request.reply(404, b"", X_Error_Code="RepoNotFound")

    @staticmethod
    def _answer(request: _Handler, content: object, status: int = 200) -> None:
        request.reply(status, json.dumps(content).encode(), Content_Type="application/json")

    @staticmethod
    def _mode(item: dict) -> dict:
        mode = "lfs" if item["path"].endswith(".tar") else "regular"
        return {"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _batch(self, request: _Handler, asked: dict) -> None:
        found = []
        for item in asked["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.stored:
                answer["actions"] = {"upload": {"href": f"{self.url}/stored/{item['oid']}"}}
            found.append(answer)
        self._answer(request, {"transfer": "basic", "objects": found})

    def _commit(self, request: _Handler, lines: list[dict]) -> None:
        header, *operations = lines
        if header["value"].get("parentCommit") != self.head:
            self._answer(request, {"error": "A commit has happened since."}, 412)
            return
        files, large = {}, set()
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
                assert hashlib.sha256(files[value["path"]]).hexdigest() == value["oid"]
                large.add(value["path"])
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        oid = self.commit(files, large)
        self.summaries.append(list(files))
        url = f"{self.url}/datasets/{self.name}/commit/{oid}"
        self._answer(request, {"commitUrl": url, "commitOid": oid, "success": True})

    def _tree(self, request: _Handler, commit: _Commit, folder: str) -> None:
        inside = {k: v for k, v in commit.files.items() if k.startswith(f"{folder}/") or not folder}
        if not inside:
            request.reply(404, b"", X_Error_Code="EntryNotFound")
            return
        recursive = "recursive=true" in request.path.lower()
        listed = []
        for path, data in inside.items():
            if not recursive and "/" in path.removeprefix(f"{folder}/"):
                continue
            git = hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()
            item = {"type": "file", "oid": git, "size": len(data), "path": path}
            if path in commit.large:
                digest = hashlib.sha256(data).hexdigest()
                item["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
            listed.append(item)
        self._answer(request, listed)

    @staticmethod
    def _resolve(request: _Handler, data: bytes | None) -> None:
        if data is None:
            request.reply(404, b"", X_Error_Code="EntryNotFound")
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if wanted is None:
            request.reply(200, data)
            return
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
        part = f"bytes {start}-{stop - 1}/{len(data)}"
        request.reply(206, data[start:stop], Content_Range=part)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubRepository]:
    from huggingface_hub import constants
    from huggingface_hub.utils._http import reset_sessions

    with HubRepository() as server:
        assert isinstance(server, HubRepository)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(hub_upload, "_FILES_A_COMMIT", 10)
        reset_sessions()
        yield server
        reset_sessions()


def test_a_store_is_pushed_to_the_hub_with_one_last_commit(hub: HubRepository, store: Path) -> None:
    url = "hf://datasets/lab/laughs/deep/store"
    assert push(store, url, dry_run=True).num_there == 0
    assert len(hub.commits) == 1
    result = push(store, url)
    assert len(hub.summaries) > 2
    last = hub.summaries[-1]
    assert {f"deep/store/{name}" for name in (layout.STORE_JSON, layout.CURRENT_INDEX)} <= set(last)
    assert not any("store.json" in path for commit in hub.summaries[:-1] for path in commit)
    assert not any(path.endswith(".tar") for path in last)
    files = hub.commits[hub.head].files
    assert len(files) == result.num_files + 1  # the README that was there
    for path, data in files.items():
        assert (
            path == "README.md" or data == (store / path.removeprefix("deep/store/")).read_bytes()
        )
    assert not verify(url).faults
    assert push(store, url).num_sent == 0
    _annotate(store)
    assert push(store, url).num_sent == 4
    assert open_store(url).manifest.generation == 2


def test_large_files_reach_the_hub_as_such_and_once(
    hub: HubRepository, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_upload, "INLINE_BYTES", 100)
    push(store, "hf://datasets/lab/laughs/store")
    large = hub.commits[hub.head].large
    shards = open_store(store).index.shards
    assert large == {f"store/shards/{item.name}" for item in shards}
    num_uploads = hub.count("PUT", "/stored/")
    assert num_uploads == len(shards)
    push(store, "hf://datasets/lab/laughs/store", zarr_keys=True)
    assert hub.count("PUT", "/stored/") == num_uploads


def test_what_the_hub_refuses_and_what_is_not_sent_to_it(
    hub: HubRepository, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match="no such repository"):
        push(store, "hf://datasets/lab/other/store")
    with pytest.raises(ConfigError, match="give a branch"):
        push(store, f"hf://datasets/lab/laughs@{'0' * 40}/store")
    shard = store / "shards" / open_store(store).index.shards[0].name
    good = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(good[:-1] + b"x")
    for limit in (1 << 20, 100):
        monkeypatch.setattr(hub_upload, "INLINE_BYTES", limit)
        with pytest.raises(CorruptData, match="its sha256"):
            push(store, "hf://datasets/lab/laughs/store")
    shard.write_bytes(good)
    assert not any("store.json" in path for path in hub.commits[hub.head].files)
    reply = hub._commit

    def overtaken(request: _Handler, lines: list[dict]) -> None:
        if any("store.json" in str(line["value"].get("path")) for line in lines):
            hub.commit({"README.md": b"somebody else"})
        reply(request, lines)

    monkeypatch.setattr(hub, "_commit", overtaken)
    with pytest.raises(LaughstoreError, match="somebody else committed"):
        push(store, "hf://datasets/lab/laughs/store")
    monkeypatch.setattr(hub, "_commit", reply)
    assert push(store, "hf://datasets/lab/laughs/store").num_there > 0
    assert not verify("hf://datasets/lab/laughs/store").faults


def test_a_commit_whose_answer_was_lost_is_known_again(
    hub: HubRepository, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply, num_lost, comes_between = hub._commit, 0, False

    def lose_the_first(request: _Handler, lines: list[dict]) -> None:
        nonlocal num_lost
        if lines[0]["value"].get("parentCommit") != hub.head:
            reply(request, lines)
            return
        num_lost += 1
        with monkeypatch.context() as patch:
            patch.setattr(hub, "_answer", lambda request, *_: FaultProxy._reset(request))
            reply(request, lines)
        if comes_between:
            hub.commit({"store/shards/theirs.tar": b"somebody else"})

    monkeypatch.setattr(hub, "_commit", lose_the_first)
    push(store, "hf://datasets/lab/laughs/store")
    assert num_lost == len(hub.summaries) > 2
    assert not verify("hf://datasets/lab/laughs/store").faults
    _annotate(store)
    comes_between = True
    with pytest.raises(LaughstoreError, match="somebody else committed"):
        push(store, "hf://datasets/lab/laughs/store")
