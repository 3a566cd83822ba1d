"""Stores that somebody made to do harm: real ones, altered, with every seal made to match again."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

from tests.stores import Episode, laugh, random_features, write_store

DIM = 64
EPISODES = [
    Episode("a", num_frames=300, events=[laugh(1.0, 2.0)]),
    Episode("b", num_frames=130, events=[laugh(3.0, 4.0)]),
]
INDEX = "shards/index-000001.json"
COLUMNS = "shards/index-000001.columns"
Content = dict[str, Any]  # Any: JSON values
Change = Callable[[Content], object]


def whole_store(path: Path, codec: str = "none") -> Path:
    """A small store as it should be: two recordings, three blocks in a first shard of two."""
    return write_store(
        path,
        EPISODES,
        random_features(DIM),
        dim=DIM,
        shard_frames=256,
        codec=codec,  # pyright: ignore[reportArgumentType]
    )


def seal_bytes(body: bytes) -> bytes:
    """Seal the text of any JSON object, however odd."""
    return body[:-1] + f',"sha256":"{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def dump(content: Content) -> bytes:
    """Canonical JSON, but of anything."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Crafted:
    """A store whose files are replaced; what names them is made to name the new bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def json(self, name: str) -> Content:
        """The content of a JSON file, without its seal."""
        content = json.loads((self.path / name).read_bytes())
        content.pop("sha256", None)
        return content

    def put(self, name: str, data: bytes) -> None:
        """Write a file and let those that name it know its size and SHA-256."""
        target = self.path / name
        if target.exists() or target.is_symlink():
            target.chmod(0o644)
            target.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self.announce(name, len(data), hashlib.sha256(data).hexdigest())

    def announce(self, name: str, num_bytes: int, sha256: str) -> None:
        """Make manifest and units name a file with this size and digest."""
        facts = {"num_bytes": num_bytes, "sha256": sha256}
        for unit in sorted((self.path / "units").glob("*.json")):
            record = self.json(f"units/{unit.name}")
            files = record["files"] if isinstance(record["files"], list) else []
            named = [item for item in files if name in (item.get("path"), item.get("also"))]
            if named:
                named[0].update(facts)
                self.put(f"units/{unit.name}", seal_bytes(dump(record)))
        manifest = self.json("store.json")
        for item in manifest["files"]:
            if item["path"] == name:
                item.update(facts)
                self._put_manifest(manifest)

        if name.endswith(".tar"):
            self.put_column("shard_sha256", list(bytes.fromhex(sha256)), 32 * self._place(name))

    def put_column(self, name: str, values: Sequence[float], start: int = 0) -> None:
        """Replace values of a column; checksums, digests and seals match."""
        entry = self.json(INDEX)["columns"]["arrays"][name]
        data = bytearray((self.path / COLUMNS).read_bytes())
        array = np.frombuffer(data, entry["dtype"], entry["count"], entry["offset"])
        array[start : start + len(values)] = values
        crc = f"{crc32c(array.tobytes()):08x}"
        self.edit_index(lambda content: content["columns"]["arrays"][name].update(crc32c=crc))
        self.put_columns(bytes(data))

    def _place(self, shard: str) -> int:
        """Position of a shard in the order of the index."""
        index, names = self.json(INDEX), []
        for recording in index["recordings"]:
            num_shards = -(-recording["num_frames"] // index["spec"]["shard_frames"])
            for stream in recording["streams"]:
                numbers = range(stream["first_shard"], stream["first_shard"] + num_shards)
                names.extend(f"shards/{recording['split']}-{i:06d}.tar" for i in numbers)
        return names.index(shard)

    def edit(self, name: str, change: Change) -> None:
        """Change a sealed JSON file by its content."""
        content = self.json(name)
        change(content)
        self.put_sealed(name, dump(content))

    def put_sealed(self, name: str, body: bytes) -> None:
        """Replace a sealed JSON file by this JSON text."""
        data = seal_bytes(body)
        if name == "store.json":
            for path in ("store.json", "generations/000001.json"):
                (self.path / path).write_bytes(data)
        elif name == INDEX:
            self.put(name, data)
            (self.path / "shards" / "index.json").write_bytes(data)
            manifest = self.json("store.json")
            manifest["index_id"] = hashlib.sha256(body).hexdigest()
            self._put_manifest(manifest)
        else:
            self.put(name, data)

    def edit_index(self, change: Change) -> None:
        """Change the index."""
        self.edit(INDEX, change)

    def put_columns(self, data: bytes) -> None:
        """Replace the columns; the index and the manifest name the new bytes."""
        self.put(COLUMNS, data)
        digest = hashlib.sha256(data).hexdigest()
        self.edit_index(lambda index: index["columns"].update(num_bytes=len(data), sha256=digest))

    def _put_manifest(self, manifest: Content) -> None:
        self.put_sealed("store.json", dump(manifest))
