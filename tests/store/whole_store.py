"""A small store with one of everything that a store may hold, for tests of its integrity."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from laughstore import layout
from laughstore.base64_arrays import encode_array
from laughstore.codec import Codec
from laughstore.commit import commit_annotations, members, publish
from laughstore.files import write_atomic
from laughstore.folders import LocalFolder
from laughstore.index_file import read_index
from laughstore.integrity.report import VerifyReport
from laughstore.manifest import Manifest, read_manifest
from laughstore.sealed import seal
from laughstore.unit import UnitRecord, write_unit
from tests.stores import Episode, laugh, random_features, write_store

DIM = 32
EPISODES = (
    Episode("a", "train", 300, [laugh(1, 2), laugh(3, 4, None), laugh(20, 21)]),
    Episode("b", "train", 128, speakers=("Ann", "Bo")),
    Episode("c", "validation", 130, [laugh(2, 3)]),
    Episode("d", "test", 5, speakers=("Only One",)),
)
TAR = "shards/train-000000.tar"
KINDS = {
    "manifest": "store.json",
    "generation": "generations/000003.json",
    "older generation": "generations/000001.json",
    "plan": "plans/000001.json",
    "unit": "units/a-ca978112.json",
    "left out": "units/e-12345678.json",
    "quarantine": "quarantine.json",
    "current index": "shards/index.json",
    "index": "shards/index-000003.json",
    "older index": "shards/index-000001.json",
    "columns": "shards/index-000003.columns",
    "older columns": "shards/index-000001.columns",
    "shard": TAR,
    "group": "features.zarr/zarr.json",
    "array": "features.zarr/train/a-ca978112/speaker-00--speaker-01/zarr.json",
    "codes": "codes.zarr/train/a-ca978112/speaker-00--speaker-01/c/0/0",
    "annotations": "annotations/*/train/a-ca978112.json",
    "statistics": "stats/*.json",
}
LEFT_OUT = {"name": "e", "split": "train", "reason": "the audio cannot be read"}


def write_whole_store(path: Path, codec: Codec = "none") -> Path:
    """Three splits, three generations, a recording left out, statistics; all files writable."""
    noise = random_features(DIM)

    def features(name: str, assignment: int, num_frames: int) -> np.ndarray:
        rows = noise(name, assignment, num_frames)
        if codec == "zstd":
            rows[:, ::2] = 0  # noise alone does not shrink
        return rows

    write_store(path, EPISODES, features, dim=DIM, shard_frames=256, codec=codec)
    shards = path / layout.SHARDS
    changed = replace(EPISODES[0].annotations, events=(laugh(1, 2.5),))
    second = commit_annotations(path, {read_index(shards).recording("a").id: changed})
    left_out = UnitRecord(id="e-12345678", status="quarantined", reason=LEFT_OUT["reason"])
    write_unit(path, left_out)
    publish(
        path,
        generation=3,
        spec=second.spec,
        members=members(path, second),
        quarantined=[LEFT_OUT],
        num_plans=1,
        before=second,
    )
    write_statistics(path)
    for item in path.rglob("*"):
        if item.is_file():
            item.chmod(0o644)
    return path


def write_statistics(path: Path) -> None:
    """Statistics as training writes them beside the shards, in their outer form."""
    recording = read_index(path / layout.SHARDS).recording("a")
    moments = {"n": 5, "mean": encode_array(np.zeros(DIM), "<f8")}
    content = {
        "format": "laughstore-stats",
        "version": 1,
        "recording": recording.id,
        "streams": {"x--y": moments | {"m2": encode_array(np.ones(DIM), "<f8")}},
    }
    write_atomic(path / layout.stats(recording.id), seal(content))


def copy_store(source: Path, target: Path) -> Path:
    """Copy a store whose shards have two names each; in the copy too both are one file."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    return target


def copy_without_links(source: Path, target: Path) -> Path:
    """Copy a store as to a file system that knows no hard links."""
    return Path(shutil.copytree(source, target))


def files_of(store: Path) -> Sequence[str]:
    """Every file of a store, by path; of two names of one file both."""
    return sorted(
        item.relative_to(store).as_posix()
        for item in store.rglob("*")
        if item.is_file() and item.name != layout.LOCK
    )


def file_of_kind(store: Path, kind: str) -> str:
    """The file of a kind in a store; the newest of several annotations."""
    return sorted(path.relative_to(store).as_posix() for path in store.glob(KINDS[kind]))[0]


def bad_files(report: VerifyReport) -> set[str]:
    return {name for fault in report.faults for name in (fault.path, fault.also) if name}


def only_fault(report: VerifyReport, path: str) -> str:
    """What is wrong with the one file that has a fault."""
    assert [fault.path for fault in report.faults] == [path]
    return str(report.faults[0])


@contextmanager
def other_content(path: Path, data: bytes) -> Iterator[None]:
    """Another content for a while; the file keeps its names."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def names_of_tar(store: Path) -> tuple[str, str]:
    records = read_manifest(store).all_files(LocalFolder(store))
    return next((item.path, item.also) for item in records if item.path == TAR and item.also)


def write_manifest(store: Path, manifest: Manifest) -> None:
    data = manifest.to_bytes()
    (store / layout.generation(manifest.generation)).write_bytes(data)
    if manifest.generation == 3:
        (store / "store.json").write_bytes(data)
