"""The table of features, of files: what is found in them, and what goes into them and comes out."""

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import zarr
from webdataset.compat import WebDataset
from webdataset.gopen import gopen_schemes
from webdataset.writer import TarWriter
from zarr.codecs import Crc32cCodec
from zarr.dtype import data_type_registry

from benchmarks import peers
from benchmarks.data import DIM, SPLIT, make_data
from benchmarks.peers import ArrowBlocks, GrainBlocks, LitDataBlocks, MosaicBlocks
from laughstore.labels import LabelSpec
from train.streaming.stream import FrameStream

NUM_FRAMES, NUM_BLOCKS = 4, 3
BITS = (
    np.random.default_rng(0).integers(-30_000, 30_000, (NUM_BLOCKS, NUM_FRAMES, DIM)).astype("i2")
)
FRAMES = torch.from_numpy(BITS[0]).view(torch.bfloat16)
WORDS = BITS[0].view(ml_dtypes.bfloat16)

# Packages that are not ours warn of what they like, and leave files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("default")


def module(name):
    """Import one of a peer's modules as the benchmark does, or skip."""
    pytest.importorskip(name.split(".")[0])
    return peers._module(name)


def flip(folder, frame=BITS[1, 2]):
    """Flip a bit of this frame, wherever it lies in the folder."""
    for path in folder.rglob("*"):
        data = bytearray(path.read_bytes()) if path.is_file() else bytearray()
        place = bytes(data).find(frame.tobytes())
        if place >= 0:
            data[place + 20] ^= 1
            path.write_bytes(data)
            return
    raise AssertionError("the frame is in no file")


def assert_one_bit_differs(blocks):
    """Assert that these blocks, in any order, are those written but for one bit."""
    found = sorted(np.asarray(block).reshape(NUM_FRAMES, DIM).tobytes() for block in blocks)
    written = sorted(block.tobytes() for block in BITS)
    assert len(found) == len(written)
    changed = np.frombuffer(b"".join(found), "u1") ^ np.frombuffer(b"".join(written), "u1")
    assert np.bitwise_count(changed).sum() == 1


# Integrity


@pytest.mark.parametrize(
    "peer", [MosaicBlocks, LitDataBlocks, GrainBlocks, ArrowBlocks], ids=lambda peer: peer.package
)
def test_a_flipped_bit_in_a_local_file_of_a_peer(peer, tmp_path):
    for name in peer.modules:
        module(name)
    peer.write(tmp_path, list(BITS))
    flip(tmp_path)
    if peer is GrainBlocks:
        with pytest.raises(RuntimeError, match="hash mismatch"):
            list(peer(tmp_path).blocks(0))
    else:
        assert_one_bit_differs(peer(tmp_path).blocks(0))


def test_webdataset_delivers_a_flipped_bit(tmp_path):
    with TarWriter(str(tmp_path / "0.tar")) as writer:
        for number, block in enumerate(BITS):
            writer.write({"__key__": str(number), "bf16": block.tobytes()})
    flip(tmp_path)
    samples = WebDataset(str(tmp_path / "0.tar"), shardshuffle=False, empty_check=False)
    assert_one_bit_differs(np.frombuffer(sample["bf16"], "i2") for sample in samples)


def test_hashes_of_mosaic_are_checked_on_download_alone(tmp_path):
    streaming = module("streaming")
    remote, local = tmp_path / "remote", tmp_path / "local"
    writer = streaming.MDSWriter(out=str(remote), columns={"frames": "bytes"}, hashes=["xxh64"])
    with writer as out:
        for block in BITS:
            out.write({"frames": block.tobytes()})
    flip(remote)

    def blocks(**folders):
        streaming.base.util.clean_stale_shared_memory()
        dataset = streaming.StreamingDataset(batch_size=1, validate_hash="xxh64", **folders)
        return [np.frombuffer(dataset[i]["frames"], "i2") for i in range(NUM_BLOCKS)]

    assert_one_bit_differs(blocks(local=str(remote)))
    with pytest.raises(ValueError, match="Checksum failure"):
        blocks(remote=str(remote), local=str(local))


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("reader", ["zarr-python", "TensorStore"])
def test_zarr_checks_what_a_codec_lets_it_check(reader, checked, tmp_path):
    codec = [Crc32cCodec()] if checked else None
    array = zarr.create_array(
        tmp_path / "frames",
        shape=(NUM_BLOCKS * NUM_FRAMES, DIM),
        chunks=(NUM_FRAMES, DIM),
        dtype="int16",
        compressors=codec,
    )
    array[:] = BITS.reshape(-1, DIM)
    flip(tmp_path)

    def blocks():
        if reader == "zarr-python":
            rows = zarr.open_array(tmp_path / "frames", mode="r")[:]
        else:
            kvstore = {"driver": "file", "path": str(tmp_path / "frames")}
            spec = {"driver": "zarr3", "kvstore": kvstore}
            rows = module("tensorstore").open(spec, read=True).result().read().result()
        return np.asarray(rows).reshape(BITS.shape)

    if checked:
        with pytest.raises(ValueError, match=re.compile("checksum|digest", re.IGNORECASE)):
            blocks()
    else:
        assert_one_bit_differs(blocks())


def test_flat_files_and_pt_files_deliver_a_flipped_bit(tmp_path):
    flat, pt = tmp_path / "flat", tmp_path / "pt"
    flat.mkdir()
    pt.mkdir()
    BITS.tofile(flat / "rows")
    flip(flat)
    assert_one_bit_differs(np.memmap(flat / "rows", "i2", "r").reshape(BITS.shape))
    torch.save({"transformer_out": torch.from_numpy(BITS)}, pt / "0.pt")
    flip(pt)
    for mapped in (False, True):
        content = torch.load(pt / "0.pt", weights_only=True, mmap=mapped)
        assert_one_bit_differs(content["transformer_out"].numpy())


# bfloat16


def test_webdataset_pickles_bfloat16_and_has_no_array_of_it(tmp_path):
    def back(extension, value):
        path = str(tmp_path / f"{extension}.tar")
        with TarWriter(path) as writer:
            writer.write({"__key__": "0", extension: value})
        samples: Any = WebDataset(path, shardshuffle=False, empty_check=False).decode()
        return next(iter(samples))

    found = back("pth", FRAMES)["pth"]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.view(torch.int16), FRAMES.view(torch.int16))
    with pytest.raises(ValueError, match="unsupported array type"):
        back("ten", [WORDS])
    assert back("npy", WORDS)["npy"].dtype == "V2"


def test_mosaic_has_bytes_and_no_bfloat16(tmp_path):
    writer = module("streaming").MDSWriter
    out = writer(out=str(tmp_path / "array"), columns={"x": "ndarray"})
    with pytest.raises(ValueError, match="bfloat16"):
        out.write({"x": WORDS})


def test_litdata_has_int16_and_no_bfloat16(tmp_path):
    writer = module("litdata.streaming.writer").BinaryWriter
    with pytest.raises(TypeError, match="BFloat16"):
        writer(str(tmp_path / "bfloat16"), chunk_size=1)[0] = FRAMES
    out = writer(str(tmp_path / "int16"), chunk_size=1)
    out[0] = FRAMES.view(torch.int16)
    out.done()
    out.merge()
    found = module("litdata").StreamingDataset(str(tmp_path / "int16"))[0]
    assert torch.equal(found, FRAMES.view(torch.int16))


def test_records_of_grain_are_bytes(tmp_path):
    record = module("array_record.python.array_record_module")
    writer = record.ArrayRecordWriter(str(tmp_path / "0"), "group_size:1")
    with pytest.raises(TypeError, match="bytes"):
        writer.write(FRAMES)
    writer.write(BITS[0].tobytes())
    writer.close()


def test_datasets_makes_bfloat16_float32():
    datasets = module("datasets")
    frames = datasets.Dataset.from_dict({"x": list(FRAMES[:, :8].nan_to_num())})
    assert frames.with_format("torch")[0]["x"].dtype == torch.float32
    with pytest.raises(ValueError, match="bfloat16"):
        datasets.Value("bfloat16")
    bits = datasets.Dataset.from_dict({"x": BITS[0].view("u2")})
    assert bits.with_format("numpy")[0]["x"].dtype == "i8"
    assert bits.with_format("arrow")[:1]["x"].type.value_type == "uint16"


def test_zarr_has_bfloat16_from_laughstore(tmp_path):
    array = zarr.create_array(tmp_path, shape=WORDS.shape, chunks=WORDS.shape, dtype=WORDS.dtype)
    array[:] = WORDS
    np.testing.assert_array_equal(np.asarray(zarr.open_array(tmp_path)[:]).view("i2"), BITS[0])
    names = {name: kind.__module__ for name, kind in data_type_registry.contents.items()}
    assert {name: names[name] for name in names if not names[name].startswith("zarr.")} == {
        "bfloat16": "laughstore.bfloat16"
    }


def test_tensorstore_has_bfloat16(tmp_path):
    tensorstore = module("tensorstore")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path)}}
    options = {"dtype": tensorstore.bfloat16, "shape": WORDS.shape}
    tensorstore.open(spec, create=True, **options).result()[...] = WORDS
    found = tensorstore.open(spec, read=True).result().read().result()
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found.view("i2"), BITS[0])


def test_npy_forgets_what_its_words_were_and_pt_does_not(tmp_path):
    np.save(tmp_path / "rows.npy", WORDS)
    assert np.load(tmp_path / "rows.npy", mmap_mode="r").dtype == "V2"
    torch.save({"transformer_out": FRAMES}, tmp_path / "0.pt")
    found = torch.load(tmp_path / "0.pt", weights_only=True)["transformer_out"]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.view(torch.int16), FRAMES.view(torch.int16))


# Where files lie, and what is asked of them


def test_peers_know_these_kinds_of_urls():
    assert {"pipe", "http", "https", "gs", "hf"} <= gopen_schemes.keys()
    pytest.importorskip("litdata")
    known = module("litdata.streaming.downloader")._DOWNLOADERS
    assert {"s3://", "gs://", "azure://", "hf://"} <= known.keys()


@pytest.mark.parametrize("driver", ["s3", "gcs", "http"])
def test_tensorstore_has_drivers_of_object_stores(driver):
    place = {"base_url": "https://example.org"} if driver == "http" else {"bucket": "frames"}
    spec = module("tensorstore").KvStore.Spec({"driver": driver, "path": "store/", **place})
    assert spec.to_json()["driver"] == driver


def test_another_label_is_another_argument_and_writes_nothing(tmp_path):
    data = make_data(tmp_path, 0.03)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    positive = []
    for label in ("detection", "shift:4f", "onset:1s"):
        with FrameStream(data.index, SPLIT, label=LabelSpec(label), global_batch=128) as stream:
            found = [batch.frame[(batch.y > 0) & (batch.weight > 0)] for batch in stream]
        positive.append(frozenset(torch.cat(found).tolist()))
    assert all(positive)
    assert len(set(positive)) == len(positive)
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
