"""Loaders that others wrote, each at its best layout, over the same frames.

Group `peers` of pyproject.toml pins them. They are imported when they are used; one that cannot be
is reported as not installed. Each keeps the frames in files of its own format, written once under
the frames' folder: a record is a block of 128 frames, 1 MiB of raw bytes, because records of one
frame are many times slower in all of them. Blocks come shuffled, and as fast as we could make
them: no compression, no checksums, no copy that their interface does not ask for.
"""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .data import DIM, SPLIT, BenchData
from .kept_files import KeptFiles
from .rivals import Pool, flat_rows
from .tensorstore_blocks import TensorStoreBlocks
from .warmth import touch_pages

NOT_INSTALLED = "not installed"
_FILE_BLOCKS = 32
"""Blocks in a file of theirs: 32 MiB, as in a shard."""
_FILE_BYTES = 34 << 20

Block = NDArray[np.int16]
"""i2[n, DIM], bits of bfloat16."""


class Peer(ABC):
    """Somebody else's format and loader."""

    name: ClassVar[str]
    package: ClassVar[str]
    """That is installed."""
    modules: ClassVar[tuple[str, ...]]
    """That are imported."""
    maps: ClassVar[bool] = False
    """Its blocks are views of files that it maps."""

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Open what `write` wrote."""

    @staticmethod
    @abstractmethod
    def write(folder: Path, blocks: Iterable[Block]) -> None:
        """Write blocks in their order."""

    @abstractmethod
    def blocks(self, epoch: int) -> Iterator[Block]:
        """Yield every block once, shuffled."""


class MosaicBlocks(Peer):
    """mosaicml-streaming: MDS shards, one column of bytes."""

    name = "mosaicml-streaming"
    package = "mosaicml-streaming"
    modules = ("streaming",)

    def __init__(self, folder: Path) -> None:
        streaming: Any = _module("streaming")  # Any: packages without types
        # What an aborted run left in shared memory would be taken for a dataset in use.
        streaming.base.util.clean_stale_shared_memory()
        self._dataset: Any = streaming.StreamingDataset(
            local=str(folder), shuffle=True, batch_size=1, num_canonical_nodes=1
        )

    @staticmethod
    def write(folder: Path, blocks: Iterable[Block]) -> None:
        """Write blocks in their order."""
        columns = {"frames": "bytes"}
        writer = _module("streaming").MDSWriter
        with writer(out=str(folder), columns=columns, size_limit=_FILE_BYTES) as out:
            for block in blocks:
                out.write({"frames": block.tobytes()})

    def blocks(self, epoch: int) -> Iterator[Block]:
        """Yield every block once, globally permuted: much faster than iterating."""
        order = np.random.default_rng(epoch).permutation(len(self._dataset)).tolist()
        return (_rows(self._dataset[number]["frames"]) for number in order)


class LitDataBlocks(Peer):
    """litdata: chunks of raw bytes, mapped by it, shuffled within and among chunks."""

    name = "litdata"
    package = "litdata"
    modules = ("litdata",)
    maps = True

    def __init__(self, folder: Path) -> None:
        self._dataset: Any = _module("litdata").StreamingDataset(
            str(folder), shuffle=True, drop_last=False, item_shuffle_window=0
        )

    @staticmethod
    def write(folder: Path, blocks: Iterable[Block]) -> None:
        """Write blocks in their order."""
        writer = _module("litdata.streaming.writer").BinaryWriter(
            str(folder), chunk_bytes=_FILE_BYTES
        )
        for number, block in enumerate(blocks):
            writer[number] = block.tobytes()
        writer.done()
        writer.merge()

    def blocks(self, epoch: int) -> Iterator[Block]:
        """Yield every block once, shuffled: the dataset counts epochs itself."""
        return (_rows(item) for item in self._dataset)


class GrainBlocks(Peer):
    """grain over ArrayRecord files: uncompressed, a record a group, blocks globally permuted.

    Two threads of its own: 1.15 times as fast as none, and its default of 16 as 0.65.
    """

    name = "grain"
    package = "grain"
    modules = ("grain", "array_record.python.array_record_module")

    def __init__(self, folder: Path) -> None:
        files = sorted(str(path) for path in folder.glob("*.array_record"))
        self._source: Any = _module("grain").sources.ArrayRecordDataSource(files)

    @staticmethod
    def write(folder: Path, blocks: Iterable[Block]) -> None:
        """Write blocks in their order."""
        record: Any = _module("array_record.python.array_record_module")
        writer: Any = None
        for number, block in enumerate(blocks):
            if number % _FILE_BLOCKS == 0:
                if writer is not None:
                    writer.close()
                path = folder / f"{number // _FILE_BLOCKS:06d}.array_record"
                writer = record.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
            writer.write(block.tobytes())
        writer.close()

    def blocks(self, epoch: int) -> Iterator[Block]:
        """Yield every block once, shuffled."""
        grain: Any = _module("grain")
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
        shuffled = grain.MapDataset.source(self._source).seed(epoch).shuffle()
        return (_rows(record) for record in shuffled.to_iter_dataset(options))


class ArrowBlocks(Peer):
    """Hugging Face datasets: a mapped Arrow file of frames, sliced in blocks without a copy."""

    name = "Hugging Face datasets"
    package = "datasets"
    modules = ("datasets", "pyarrow")
    maps = True

    def __init__(self, folder: Path) -> None:
        dataset = _module("datasets").Dataset.from_file(str(folder / "frames.arrow"))
        self._dataset: Any = dataset.with_format("arrow")
        self._edges: list[int] = np.load(folder / "edges.npy", allow_pickle=False).tolist()

    @staticmethod
    def write(folder: Path, blocks: Iterable[Block]) -> None:
        """Write blocks in their order."""
        arrow: Any = _module("pyarrow")
        schema = arrow.schema({"frame": arrow.list_(arrow.uint16(), DIM)})
        edges = [0]
        with arrow.ipc.new_stream(str(folder / "frames.arrow"), schema) as out:
            for block in blocks:
                values = arrow.array(np.ascontiguousarray(block).view(np.uint16).reshape(-1))
                rows = arrow.FixedSizeListArray.from_arrays(values, DIM)
                out.write_batch(arrow.record_batch([rows], schema=schema))
                edges.append(edges[-1] + len(block))
        np.save(folder / "edges.npy", np.array(edges, np.int64))

    def blocks(self, epoch: int) -> Iterator[Block]:
        """Yield every block once, shuffled."""
        for block in np.random.default_rng(epoch).permutation(len(self._edges) - 1).tolist():
            table = self._dataset[self._edges[block] : self._edges[block + 1]]
            for chunk in table.column("frame").chunks:
                yield chunk.flatten().to_numpy().view(np.int16).reshape(-1, DIM)


PEERS: tuple[type[Peer], ...] = (MosaicBlocks, LitDataBlocks, GrainBlocks, ArrowBlocks)


def installed(peers: Iterable[type[Peer]] = PEERS) -> dict[str, str]:
    """Return the version of each of these and of TensorStore, or NOT_INSTALLED."""
    return {peer.name: _version(peer) for peer in (*peers, TensorStoreBlocks)}


class OpenPeer:
    """One peer's files and its loader, for contestants of all batch sizes.

    Args:
        peer: that is installed.
        data: whose frames it keeps; what is there of a finished write is used again.
    """

    def __init__(self, peer: type[Peer], data: BenchData) -> None:
        self.name = peer.name
        name = f"peer-{peer.package}-{version(peer.package)}"
        self._files = KeptFiles(data, name, lambda folder: peer.write(folder, file_blocks(data)))
        self._peer = peer(self._files.folder)
        self._pools: dict[int, Pool] = {}
        self._epoch = -1

    def warm(self) -> None:
        """Put its files in memory, and touch what it maps. Not timed."""
        self._files.warm()
        if self._peer.maps:
            for block in self._peer.blocks(0):
                touch_pages(block)

    def forget(self) -> None:
        """Leave the page cache to the others, where it is too small for all. Not timed."""
        self._files.forget()

    def epoch(self, batch: int) -> Iterator[Tensor]:
        """Yield the batches i2[B, DIM] of another epoch; as `Pool.shuffled`."""
        self._epoch += 1
        pool = self._pools.setdefault(batch, Pool(batch))
        return pool.shuffled(self._peer.blocks(self._epoch), self._epoch)


def open_peers(data: BenchData, peers: Iterable[type[Peer]] = PEERS) -> list[OpenPeer]:
    """Return those that are installed, with their files written."""
    return [OpenPeer(peer, data) for peer in peers if _version(peer) != NOT_INSTALLED]


def file_blocks(data: BenchData) -> Iterator[Block]:
    """Yield the blocks of the frames in their order; the last one of a stream may be smaller."""
    rows = flat_rows(data)
    first = 0
    for stream in data.index.streams(SPLIT):
        for start in range(0, stream.num_frames, data.index.block_frames):
            count = min(data.index.block_frames, stream.num_frames - start)
            yield rows[first + start : first + start + count]
        first += stream.num_frames


def _module(name: str) -> ModuleType:
    # They look for newer versions of themselves, or for files on a hub, when they are imported.
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return importlib.import_module(name)


def _version(peer: type[Peer] | type[TensorStoreBlocks]) -> str:
    with suppress(ImportError):  # PackageNotFoundError is one
        for name in peer.modules:
            _module(name)
        return version(peer.package)
    return NOT_INSTALLED


def _rows(record: bytes | memoryview) -> Block:
    return np.frombuffer(record, np.int16).reshape(-1, DIM)
