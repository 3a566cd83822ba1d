"""Zarr keys served from files of another name: what a copy that holds its shards once needs."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.array_spec import ArrayConfigParams
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from laughstore import bfloat16 as _registers_the_dtype  # noqa: F401
from laughstore.errors import CorruptData, NotFound
from laughstore.folders import Folder, LocalFolder, open_folder
from laughstore.zarr_folder import ZarrFolder
from tests.stores import Episode, random_features, write_store

from .loopback import Fault, FaultProxy
from .servers import S3Server

STRICT: ArrayConfigParams = {"read_missing_chunks": False}
NUM_FRAMES = 1000  # of shards of 256: three and a part
FUSED = "zarr.core.codec_pipeline.FusedCodecPipeline"
BATCHED = "zarr.core.codec_pipeline.BatchedCodecPipeline"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zarr") / "store"
    features = random_features(64)
    return write_store(
        path, [Episode("one", num_frames=NUM_FRAMES)], features, block_frames=64, shard_frames=256
    )


@pytest.fixture(scope="module")
def keys(store: Path) -> dict[str, str]:
    """Keys of one array; its chunks are the shards with the same bytes."""
    array = next((store / "features.zarr").rglob("c")).parent
    shards = {_digest(path): path for path in (store / "shards").glob("*.tar")}
    result = {"zarr.json": (array / "zarr.json").relative_to(store).as_posix()}
    for chunk in (array / "c").rglob("0"):
        if chunk.is_file():
            key = chunk.relative_to(array).as_posix()
            result[key] = shards[_digest(chunk)].relative_to(store).as_posix()
    assert len(result) == 5
    return result


@pytest.fixture(scope="module")
def frames(store: Path) -> NDArray[np.uint16]:
    array = next((store / "features.zarr").rglob("c")).parent
    data = np.asarray(zarr.open_array(array, mode="r")[:])
    assert data.shape == (NUM_FRAMES, 64)
    return data.view(np.uint16)


@pytest.fixture
def s3_folder(s3_environment: S3Server, store: Path) -> Folder:
    """A copy that holds the shards once."""
    for path in [*store.glob("shards/*.tar"), *store.rglob("zarr.json")]:
        s3_environment.put(f"zarr/{path.relative_to(store).as_posix()}", path.read_bytes())
    return open_folder("s3://laughter/zarr")


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, store: Path) -> Folder:
    if request.param == "local":
        return LocalFolder(store)
    return request.getfixturevalue("s3_folder")


@pytest.mark.parametrize("pipeline", [BATCHED, FUSED])
def test_an_array_over_the_shards_is_the_array(
    folder: Folder, keys: dict[str, str], frames: NDArray[np.uint16], pipeline: str
) -> None:
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        array = zarr.open_array(ZarrFolder(folder, keys), mode="r", config=STRICT)
        assert np.array_equal(np.asarray(array[:]).view(np.uint16), frames)
        for start, stop in ((0, 1), (250, 260), (999, 1000), (63, 600), (5, 5)):
            part = np.asarray(array[start:stop]).view(np.uint16)
            assert np.array_equal(part, frames[start:stop])


def test_parts_of_a_value(folder: Folder, keys: dict[str, str], store: Path) -> None:
    served = ZarrFolder(folder, keys)
    whole = (store / keys["c/1/0"]).read_bytes()
    prototype = default_buffer_prototype()
    parts = {
        None: whole,
        RangeByteRequest(3, 9): whole[3:9],
        RangeByteRequest(len(whole) - 4, len(whole) + 50): whole[-4:],
        OffsetByteRequest(100): whole[100:],
        OffsetByteRequest(len(whole)): b"",
        SuffixByteRequest(20): whole[-20:],
        SuffixByteRequest(len(whole) + 5): whole,
    }
    asked = [("c/1/0", part) for part in parts] + [("c/9/0", None)]
    answers = sync(served.get_partial_values(prototype, asked))
    for answer, expected in zip(answers, [*parts.values(), None], strict=True):
        assert (None if answer is None else answer.to_bytes()) == expected
    assert sync(served.getsize("c/1/0")) == len(whole)


def test_keys_that_are_not_in_the_map_do_not_exist(store: Path, keys: dict[str, str]) -> None:
    served = ZarrFolder(LocalFolder(store), keys)
    prototype = default_buffer_prototype()
    assert sync(served.get("store.json", prototype)) is None
    assert not sync(served.exists("store.json"))
    assert sync(served.exists("c/0/0"))
    assert sync(_collect(served.list())) == sorted(keys, key=list(keys).index)
    assert sync(_collect(served.list_dir(""))) == ["c", "zarr.json"]
    assert sync(_collect(served.list_dir("c"))) == ["0", "1", "2", "3"]
    assert sync(_collect(served.list_prefix("c/2"))) == ["c/2/0"]


def test_nothing_is_written(store: Path, keys: dict[str, str]) -> None:
    served = ZarrFolder(LocalFolder(store), keys)
    array = zarr.open_array(served, mode="r")
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_array(served, mode="r+")


@pytest.mark.parametrize("pipeline", [BATCHED, FUSED])
def test_a_lost_shard_is_an_error_and_never_fill_values(
    store: Path, keys: dict[str, str], pipeline: str
) -> None:
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        lost = keys | {"c/1/0": "shards/lost-000000.tar"}
        array = zarr.open_array(ZarrFolder(LocalFolder(store), lost), mode="r", config=STRICT)
        for stop in (300, 512):  # a part of a shard, and all of it
            with pytest.raises(NotFound, match=r"lost-000000\.tar"):
                array[256:stop]
        hostile = keys | {"c/1/0": "../outside"}
        array = zarr.open_array(ZarrFolder(LocalFolder(store), hostile), mode="r", config=STRICT)
        with pytest.raises(CorruptData, match="must not be opened"):
            array[256:300]


def test_faults_of_the_network_do_not_reach_the_array(
    s3_folder: Folder, keys: dict[str, str], frames: NDArray[np.uint16], fault_proxy: FaultProxy
) -> None:
    served = ZarrFolder(open_folder("s3://laughter/zarr"), keys)
    array = zarr.open_array(served, mode="r", config=STRICT)
    fault_proxy.spoil(Fault("status", 1), Fault("cut", 1), Fault("reset", 1), Fault("status", 1))
    assert np.array_equal(np.asarray(array[200:800]).view(np.uint16), frames[200:800])
    assert all(fault.done for fault in fault_proxy.faults)


async def _collect(items: object) -> list[str]:
    return [item async for item in items]  # pyright: ignore[reportGeneralTypeIssues]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
