"""Meet bombs in a process that cannot grow. Run by `test_numbers`: `limited.py FOLDER`.

Prints one line for each bomb; ends with 1 at the first that is not refused in time.
"""

import json
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import laughstore.webdataset
from laughstore import LaughstoreError, open_shards, open_store
from tests.hostile.crafting import Crafted, seal_bytes, whole_store
from tests.hostile.reading import read_everything

GROWTH_BYTES = 256 << 20
LIMIT_S = 20.0  # of CPU time is meant; the machine may be busy
SPARSE_BYTES = 1 << 30
INDEX = "shards/index-000001.json"


def _sparse(path: Path, num_bytes: int = SPARSE_BYTES) -> None:
    path.chmod(0o644)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(num_bytes)


def _sparse_file(pattern: str, num_bytes: int = SPARSE_BYTES) -> Callable[[Path], None]:
    return lambda path: _sparse(next(path.glob(pattern)), num_bytes)


def _many_keys(path: Path) -> None:
    body = b'{"a":[' + b"{}," * 12_000_000 + b"{}]}"
    (path / "store.json").write_bytes(seal_bytes(body))


def _huge_columns(path: Path) -> None:
    crafted = Crafted(path)
    num_bytes = 1 << 40
    _sparse(path / "shards/index-000001.columns", num_bytes)

    def lie(content: dict) -> None:
        content["columns"]["num_bytes"] = num_bytes
        content["recordings"][0]["num_frames"] = 2**32
        arrays = content["columns"]["arrays"]
        arrays["block_crc32c"].update(count=2**25 * 2 + 2)

    crafted.edit_index(lie)


def _zstd_claim(claim: int) -> Callable[[Path], None]:
    """Every block says in its header that it takes this many bytes."""

    def craft(path: Path) -> None:
        for shard in (path / "shards").glob("*.tar"):
            data = bytearray(shard.read_bytes())
            start = 0
            while (start := data.find(b"\x28\xb5\x2f\xfd", start)) >= 0:
                # No checksum, one segment, eight bytes of content size.
                data[start + 4] = 0b11100000
                data[start + 5 : start + 13] = claim.to_bytes(8, "little")
                start += 13
            shard.chmod(0o644)
            shard.write_bytes(data)

    return craft


def _zstd_bomb(path: Path) -> None:
    """Blocks that are one gibibyte of zeros, sound for zstd."""
    from numcodecs.zstd import compress

    bomb = compress(bytes(64 << 20), 1)
    for shard in (path / "shards").glob("*.tar"):
        data = bytearray(shard.read_bytes())
        start = data.find(b"\x28\xb5\x2f\xfd")
        data[start : start + len(bomb)] = bomb
        shard.chmod(0o644)
        shard.write_bytes(data)


def _frames(path: Path) -> None:
    store = open_store(path)
    for recording in store.recordings:
        for stream in recording.streams:
            store.frames(recording.id, stream.assignment)


def _decode_claims(path: Path) -> None:
    sample = {
        "__key__": "a/a--b/000000",
        "json": json.dumps(
            {
                "recording": "a",
                "assignment": "a--b",
                "start_frame": 0,
                "num_frames": 1,
                "shape": [2**36, 64],
                "dtype": "bfloat16",
                "crc32c": "00000000",
                "codec": "zstd",
            }
        ).encode(),
        "bf16.zst": b"\x28\xb5\x2f\xfd\xe0" + (2**43 + 4).to_bytes(8, "little") + bytes(64),
    }
    laughstore.webdataset.decode(sample)


def _codes(path: Path) -> None:
    store = open_store(path)
    np.asarray(store.codes("a")[:])


BOMBS: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], object]]] = {
    "sparse store.json": ("none", _sparse_file("store.json"), open_store),
    "sparse index": ("none", _sparse_file("shards/index*.json"), open_shards),
    "sparse unit": ("none", _sparse_file("units/a-*"), read_everything),
    "sparse annotations": ("none", _sparse_file("annotations/*/train/a-*"), read_everything),
    "sparse zarr.json": (
        "none",
        _sparse_file("features.zarr/train/a-*/*/zarr.json"),
        lambda path: [
            open_store(path).array("a", name) for name in open_store(path).assignments("a")
        ],
    ),
    "sparse shard of 4 TiB": ("none", _sparse_file("shards/train-000000.tar", 1 << 42), _frames),
    "sparse columns of 1 TiB": ("none", _huge_columns, open_shards),
    "sparse chunk of codes of 4 TiB": (
        "none",
        _sparse_file("codes.zarr/train/a-*/speaker-00*/c/0/0", 1 << 42),
        _codes,
    ),
    "millions of objects": ("none", _many_keys, open_store),
    "zstd of 2^60 bytes": ("zstd", _zstd_claim(2**60), _frames),
    "zstd of 2^63 bytes": ("zstd", _zstd_claim(2**63), _frames),
    "zstd of one byte more": ("zstd", _zstd_claim(128 * 128 + 5), _frames),
    "zstd of half a block": ("zstd", _zstd_claim(128 * 64), _frames),
    "zstd of 64 MiB of zeros": ("zstd", _zstd_bomb, _frames),
    "a sample of 2^43 bytes": ("none", lambda path: None, _decode_claims),
}


def main(folder: Path) -> int:
    """Meet all bombs; returns the exit status."""
    templates = {codec: whole_store(folder / codec, codec) for codec in ("none", "zstd")}
    for path in templates.values():
        read_everything(path)  # imports, threads and buffers are there before the limit is set
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name, (codec, craft, read) in BOMBS.items():
        path = folder / "crafted"
        shutil.copytree(templates[codec], path)
        craft(path)
        threading.stack_size(0)
        began = time.process_time()
        try:
            read(path)
        except LaughstoreError as error:
            seconds = time.process_time() - began
            print(f"refused {name} in {seconds:.2f} s: {error}")
            if seconds > LIMIT_S or "\n" in str(error):
                return 1
        except BaseException as error:  # a MemoryError is what is looked for
            print(f"NOT refused, {name}: {type(error).__name__}: {error}")
            return 1
        else:
            print(f"NOT refused, {name}: read as if it were sound")
            return 1
        shutil.rmtree(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
