"""A reader of stores written from docs/format.md alone: it imports nothing of laughstore.

Slow and strict. Whatever it asserts is a rule of the document.
"""

import hashlib
import json
import struct
import unicodedata
from pathlib import Path
from typing import Any

DTYPES = {"<i8": "q", "<i4": "i", "<u4": "I", "<f4": "f", "|u1": "B"}
NO_BLOCK = 2**64 - 1


def _crc_table() -> list[int]:
    table: list[int] = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def canonical(value: object) -> bytes:
    """F2: canonical JSON."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def unseal(data: bytes) -> tuple[dict[str, Any], str]:
    """F2: the object of a sealed file, and its seal."""
    value = json.loads(data)
    seal = value.pop("sha256")
    body = canonical(value)
    assert hashlib.sha256(body).hexdigest() == seal
    assert data == body[:-1] + b',"sha256":"' + seal.encode() + b'"}\n'
    return value, seal


class Geometry:
    """Section 4: sizes that follow from a spec."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.dim, self.frames = spec["dim"], spec["block_frames"]
        self.shard_frames, self.codec = spec["shard_frames"], spec["codec"]
        self.row_bytes = 2 * self.dim
        rows = 1
        while rows * self.row_bytes % 512 or rows * self.row_bytes < 2048:
            rows += 1
        self.header_rows = rows
        self.json_bytes = rows * self.row_bytes - 1536
        self.data_bytes = self.frames * self.row_bytes
        self.num_slots = self.shard_frames // self.frames


def tar_header(data: bytes) -> tuple[str, int]:
    """F16: name and size in a USTAR header, whose other fields are as they must be."""
    assert data[257:265] == b"ustar\x0000"
    assert int(data[148:154], 8) == sum(data[:148]) + 8 * 32 + sum(data[156:512])
    assert data[156:157] == b"0"
    assert int(data[100:107], 8) == 0o444
    for field in (data[108:115], data[116:123], data[136:147]):  # uid, gid, mtime
        assert int(field, 8) == 0
    assert not any(data[157:257]), "no link"
    assert not any(data[265:329]), "no owner"
    assert not any(data[345:512]), "no prefix"
    return data[:100].rstrip(b"\0").decode(), int(data[124:135], 8)


def read_shard(
    data: bytes, geometry: Geometry
) -> list[tuple[str, dict[str, Any], bytes, int, int]]:
    """F16 to F23: (key, JSON, rows, offset, size) of every block."""
    assert tar_header(data[:512]) == ("__laughstore__/1", 0)
    suffix = "bf16" if geometry.codec == "none" else "bf16.zst"
    blocks: list[tuple[str, dict[str, Any], bytes, int, int]] = []
    place = 512
    while any(data[place : place + 512]):
        name, size = tar_header(data[place : place + 512])
        assert size == geometry.json_bytes
        assert name.endswith(".json")
        key = name.removesuffix(".json")
        assert "." not in key
        text = data[place + 512 : place + 512 + size]
        about = json.loads(text)
        assert text == canonical(about).ljust(size), "one object, then spaces"
        place += 512 + size
        name, size = tar_header(data[place : place + 512])
        assert name == f"{key}.{suffix}"
        offset = place + 512
        content = data[offset : offset + size]
        if geometry.codec == "zstd":
            from numcodecs.zstd import decompress

            content = bytes(decompress(content))
        rows, crc = content[:-4], struct.unpack("<I", content[-4:])[0]
        assert len(rows) == geometry.data_bytes
        assert crc32c(rows) == crc == int(about["crc32c"], 16)
        blocks.append((key, about, rows, offset, size))
        place = offset + -(-size // 512) * 512
        assert not any(data[offset + size : place]), "padding"
    index = data[-16 * geometry.num_slots - 4 :]
    assert crc32c(index[:-4]) == struct.unpack("<I", index[-4:])[0]
    slots = list(struct.iter_unpack("<QQ", index[:-4]))
    empty = geometry.num_slots - len(blocks)
    assert slots == [item[3:] for item in blocks] + [(NO_BLOCK, NO_BLOCK)] * empty
    least = place + 1024 + len(index)
    assert len(data) == -(-least // geometry.row_bytes) * geometry.row_bytes
    assert not any(data[place : len(data) - len(index)])
    return blocks


def slug(name: str, limit: int) -> str:
    """F12: lower-case ASCII, runs of other characters one dash."""
    text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    parts: list[str] = [""]
    for character in text:
        if character.isalnum():
            parts[-1] += character
        elif parts[-1]:
            parts.append("")
    return "-".join(part for part in parts if part)[:limit].strip("-")


def recording_id(name: str) -> str:
    """F12."""
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode()).hexdigest()[:8]
    return f"{slug(name, 48)}-{digest}"


class IndependentStore:
    """A store, read whole and held against every rule."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest, _ = self.sealed("store.json", "laughstore")
        number = self.manifest["generation"]
        assert (path / f"generations/{number:06d}.json").read_bytes() == self.read("store.json")
        self.files = self._all_files()
        self.spec = self.manifest["spec"]
        spec_id = hashlib.sha256(canonical(self.spec)).hexdigest()[:16]
        assert self.manifest["spec_id"] == spec_id
        assert self.manifest["index"] == f"shards/index-{number:06d}.json"
        self.index, seal = self.sealed(self.manifest["index"], "laughstore-index")
        assert seal == self.manifest["index_id"]
        assert self.read("shards/index.json") == self.read(self.manifest["index"])
        self.geometry = Geometry(self.spec)
        assert self.index["spec"] == self.spec
        assert self.index["spec_id"] == spec_id
        assert self.index["header_rows"] == self.geometry.header_rows
        assert self.index["rows_per_block"] == self.geometry.header_rows + self.geometry.frames
        self.columns = self._columns()

    def read(self, name: str) -> bytes:
        """A whole file."""
        return (self.path / name).read_bytes()

    def sealed(self, name: str, kind: str) -> tuple[dict[str, Any], str]:
        """F2, F3: a sealed file."""
        value, seal = unseal(self.read(name))
        assert (value["format"], value["version"]) == (kind, 1)
        return value, seal

    def frames(self) -> dict[tuple[str, str], bytes]:
        """Rows of every stream by (recording name, assignment): F22, F28, F29, F32."""
        found: dict[tuple[str, str], bytes] = {}
        geometry, block, shard = self.geometry, 0, 0
        for recording in self.index["recordings"]:
            num_frames = recording["num_frames"]
            for stream in recording["streams"]:
                rows = b""
                for number in range(-(-num_frames // geometry.shard_frames)):
                    name = f"shards/{recording['split']}-{stream['first_shard'] + number:06d}.tar"
                    array = f"{recording['split']}/{recording['id']}/{stream['assignment']}"
                    data = self.read(name)
                    assert self.read(f"features.zarr/{array}/c/{number}/0") == data
                    assert self.columns["shard_bytes"][shard] == len(data)
                    digest = bytes(self.columns["shard_sha256"][32 * shard : 32 * shard + 32])
                    assert hashlib.sha256(data).digest() == digest
                    for key, about, part, offset, size in read_shard(data, geometry):
                        start = len(rows) // geometry.row_bytes
                        assert key == (
                            f"{recording['id']}/{stream['assignment']}"
                            f"/{start // geometry.frames:06d}"
                        )
                        self._sample(about, recording, stream, start)
                        assert crc32c(part) == self.columns["block_crc32c"][block]
                        if geometry.codec == "zstd":
                            assert self.columns["block_bytes"][block] == size
                        else:
                            place = start % geometry.shard_frames // geometry.frames
                            row = place * self.index["rows_per_block"] + geometry.header_rows
                            assert offset == row * geometry.row_bytes
                        rows += part
                        block += 1
                    shard += 1
                end = num_frames * geometry.row_bytes
                assert rows[end:] == struct.pack("<H", 0x7FC0) * (len(rows[end:]) // 2)
                found[recording["name"], stream["assignment"]] = rows[:end]
        assert block == len(self.columns["block_crc32c"])
        assert shard == len(self.columns["shard_bytes"])
        return found

    def codes(self, recording: dict[str, Any], assignment: str) -> list[tuple[int, ...]]:
        """F26: the codes of a stream."""
        folder = f"codes.zarr/{recording['split']}/{recording['id']}/{assignment}"
        num_frames, size = recording["num_frames"], self.geometry.shard_frames * 34
        rows: list[tuple[int, ...]] = []
        for number in range(-(-num_frames // self.geometry.shard_frames)):
            data = self.read(f"{folder}/c/{number}/0")
            assert len(data) == size + 4
            assert crc32c(data[:-4]) == struct.unpack("<I", data[-4:])[0]
            rows.extend(struct.iter_unpack("<17h", data[:-4]))
        assert all(row == (-1,) * 17 for row in rows[num_frames:])
        return rows[:num_frames]

    def annotations(self, recording: dict[str, Any]) -> dict[str, Any]:
        """F37: what is annotated in a recording."""
        name = recording["annotations_id"]
        data = self.read(f"annotations/{name}/{recording['split']}/{recording['id']}.json")
        value = json.loads(data)
        assert data == canonical(value) + b"\n"
        assert hashlib.sha256(data[:-1]).hexdigest()[:8] == name
        assert (value["format"], value["version"]) == ("laughstore-annotations", 1)
        return value

    def table(self, name: str, fields: list[str]) -> list[list[tuple[Any, ...]] | None]:
        """F33: rows of a table for each recording."""
        rows = zip(*(self.columns[f"{name}.{field}"] for field in fields), strict=True)
        tables = [
            None if length < 0 else [next(rows) for _ in range(int(length))]
            for length in self.columns[f"{name}.lengths"]
        ]
        assert next(rows, None) is None
        return tables

    def _all_files(self) -> list[str]:
        """F6, F7: every name, its size and digest compared."""
        entries = list(self.manifest["files"])
        for item in self.manifest["files"]:
            if item["path"].startswith("units/"):
                entries.extend(self.sealed(item["path"], "laughstore-unit")[0]["files"])
        names: list[str] = []
        for item in entries:
            assert (item["also"] is not None) == item["path"].endswith(".tar")
            for name in filter(None, (item["path"], item["also"])):
                data = self.read(name)
                assert len(data) == item["num_bytes"]
                assert hashlib.sha256(data).hexdigest() == item["sha256"]
                names.append(name)
        assert len(set(names)) == len(names)
        return names

    def _columns(self) -> dict[str, tuple[Any, ...]]:
        """F30, F31: all arrays."""
        about = self.index["columns"]
        number = self.manifest["generation"]
        assert about["name"] == f"index-{number:06d}.columns"
        data = self.read(f"shards/{about['name']}")
        assert len(data) == about["num_bytes"]
        assert hashlib.sha256(data).hexdigest() == about["sha256"]
        arrays: dict[str, tuple[Any, ...]] = {}
        end = 0
        for name, item in sorted(
            about["arrays"].items(), key=lambda pair: (pair[1]["offset"], pair[1]["count"])
        ):
            letter = DTYPES[item["dtype"]]
            size = item["count"] * struct.calcsize(letter)
            assert item["offset"] == end
            part = data[end : end + size]
            assert crc32c(part) == int(item["crc32c"], 16)
            arrays[name] = struct.unpack(f"<{item['count']}{letter}", part)
            end += -(-size // 8) * 8
            assert not any(data[item["offset"] + size : end])
        assert end == len(data)
        return arrays

    def _sample(
        self, about: dict[str, Any], recording: dict[str, Any], stream: dict[str, Any], start: int
    ) -> None:
        """F24."""
        geometry = self.geometry
        expected = {
            "recording": recording["id"],
            "assignment": stream["assignment"],
            "start_frame": start,
            "num_frames": min(geometry.frames, recording["num_frames"] - start),
            "shape": [geometry.frames, geometry.dim],
            "dtype": "bfloat16",
            "spec_id": self.index["spec_id"],
        }
        if geometry.codec == "zstd":
            expected["codec"] = "zstd"
        rest = {key: value for key, value in about.items() if key not in expected}
        assert {key: about[key] for key in expected} == expected
        assert ("events" in rest) != (rest.get("events_cut") is True)
        assert rest.keys() - {"events", "events_cut"} == {"crc32c", "annotations_id"}
