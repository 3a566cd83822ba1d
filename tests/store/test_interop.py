"""Readers that know nothing of laughstore: TensorStore, xarray, WebDataset with a decoder."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorstore
import torch
import xarray
from webdataset.compat import WebDataset

import laughstore.webdataset
from laughstore import CorruptData, open_shards, open_store
from laughstore.codec import CODECS, Codec, member_suffix
from laughstore.naming import shard_name
from tests.stores import Episode, laugh, random_features, write_store

REPOSITORY = Path(__file__).parents[2]
DIM = 64
SHARD_FRAMES = 512
LENGTHS = {"one frame": 1, "ragged, three shards": 1024 + 128 + 37}


@pytest.fixture(scope="module", params=CODECS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("interop") / "store"
    episodes = [
        Episode(name, num_frames=num, events=[laugh(0.0, 0.05)]) for name, num in LENGTHS.items()
    ]
    features = random_features(DIM)
    write_store(path, episodes, features, dim=DIM, shard_frames=SHARD_FRAMES, codec=request.param)
    index = open_shards(path)
    expected = {
        (stream.recording_id, stream.assignment): features(recording.name, i, recording.num_frames)
        for recording in index.recordings
        for i, stream in enumerate(recording.streams)
    }
    return path, request.param, expected


def _array(path: Path, root: str, key: tuple[str, str]) -> Path:
    return path / root / "train" / key[0] / key[1]


def _bits(values: object) -> np.ndarray:
    array = np.asarray(values)
    assert array.dtype == np.dtype(ml_dtypes.bfloat16)
    return array.view(np.uint16)


def _tensorstore(path: Path) -> tensorstore.TensorStore:
    return tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(path)},
            "fill_missing_data_reads": False,  # what is missing is an error, as for us
        },
        read=True,
    ).result()


@pytest.mark.parametrize("root", ["features.zarr", "codes.zarr"])
def test_tensorstore_reads_every_number(built, root):
    path, _, expected = built
    for key, bits in expected.items():
        array = _tensorstore(_array(path, root, key))
        assert array.domain.labels[0] == "frame"
        values = array.read().result()
        if root == "features.zarr":
            np.testing.assert_array_equal(_bits(values), bits)
            part = array[len(bits) // 2 : len(bits)].read().result()
            np.testing.assert_array_equal(_bits(part), bits[len(bits) // 2 :])
        else:
            np.testing.assert_array_equal(values, open_store(path).codes(*key)[:])


def test_tensorstore_refuses_a_block_with_a_flipped_bit(tmp_path):
    path = write_store(tmp_path / "store", [Episode("a")], random_features(DIM), dim=DIM)
    stream = open_store(path).stream("a")
    folder = _array(path, "features.zarr", (stream.recording_id, stream.assignment))
    chunk = folder / "c" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[4000] ^= 1
    chunk.chmod(0o644)
    chunk.write_bytes(data)
    with pytest.raises(ValueError, match=r"DATA_LOSS.*Digest mismatch"):
        _tensorstore(folder).read().result()


def test_xarray_opens_a_recording_with_names_for_its_axes(built):
    path, _, expected = built
    recordings = {recording for recording, _ in expected}
    for recording in recordings:
        group = path / "features.zarr" / "train" / recording
        with xarray.open_dataset(
            group, engine="zarr", consolidated=False, chunks=None, mask_and_scale=False
        ) as dataset:
            assert set(dataset.data_vars) == {a for r, a in expected if r == recording}
            for name, array in dataset.data_vars.items():
                assert array.dims == ("frame", "channel")
                assert array.attrs["frame_rate_hz"] == 12.5
                np.testing.assert_array_equal(_bits(array), expected[(recording, str(name))])


def test_the_dtype_stands_under_its_official_extension_name(built):
    path, codec, expected = built
    key = next(iter(expected))
    about = json.loads((_array(path, "features.zarr", key) / "zarr.json").read_bytes())
    assert about["zarr_format"] == 3
    assert about["data_type"] == "bfloat16"
    assert about["fill_value"] == "NaN"
    inner = about["codecs"][0]["configuration"]["codecs"]
    assert [item["name"] for item in inner] == ["bytes", "crc32c", "zstd"][: len(inner)]
    assert len(inner) == (2 if codec == "none" else 3)
    assert inner[0]["configuration"] == {"endian": "little"}


def test_a_process_that_imports_only_zarr_reads_the_arrays(built, tmp_path):
    path, _, expected = built
    key, bits = max(expected.items(), key=lambda item: len(item[1]))
    np.save(tmp_path / "bits.npy", bits)
    code = (
        "import sys, numpy, zarr\n"
        "array = zarr.open_array(sys.argv[1], mode='r')\n"
        "assert str(array.dtype) == 'bfloat16', array.dtype\n"
        "expected = numpy.load(sys.argv[2], allow_pickle=False)\n"
        "assert (numpy.asarray(array[:]).view('u2') == expected).all()\n"
        "assert 'laughstore.store' not in sys.modules\n"
    )
    arguments = [str(_array(path, "features.zarr", key)), str(tmp_path / "bits.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=120)


def _urls(path: Path) -> list[str]:
    return sorted(map(str, (path / "shards").glob("*.tar")))


def _dataset(path: Path) -> Any:  # Any: webdataset's pipelines have no types
    return WebDataset(_urls(path), shardshuffle=False)


def _samples(path: Path) -> list[dict[str, Any]]:
    return list(_dataset(path))


def test_stock_webdataset_yields_tensors_without_the_rows_that_fill_a_block(built):
    path, _, expected = built
    found: dict[tuple[str, str], list[torch.Tensor]] = {}
    for sample in _dataset(path).map(laughstore.webdataset.decode):
        key = sample["recording"], sample["assignment"]
        frames = sample["frames"]
        assert frames.dtype == torch.bfloat16
        assert sample["start_frame"] == sum(map(len, found.get(key, [])))
        assert sample["__key__"] == f"{key[0]}/{key[1]}/{sample['start_frame'] // 128:06d}"
        assert [event["start_us"] for event in sample["events"]] == (
            [0] if sample["start_frame"] == 0 else []
        )
        assert len(sample["spec_id"]) == 16
        assert not {"json", "bf16", "bf16.zst", "crc32c", "shape"} & sample.keys()
        found.setdefault(key, []).append(frames)
    assert found.keys() == expected.keys()
    for key, parts in found.items():
        bits = torch.cat(parts).view(torch.int16).numpy().view(np.uint16)
        np.testing.assert_array_equal(bits, expected[key])


@pytest.mark.parametrize("document", ["laughstore/webdataset.py", "docs/guide.md"])
def test_the_documented_pattern_takes_the_shards_of_one_split(tmp_path, document):
    written = re.findall(r'glob\(("[^"]*train-.*?\.tar")\)', (REPOSITORY / document).read_text())
    (pattern,) = (Path(eval(expression)).name for expression in written)
    names = {split: shard_name(split, 42) for split in ("train", "train-clean", "train-000000")}
    for name in names.values():
        (tmp_path / name).touch()
    assert [path.name for path in tmp_path.glob(pattern)] == [names["train"]]


def test_it_composes_and_batches_as_any_decoder_does(built):
    path, _, _ = built
    whole = _dataset(path).map(laughstore.webdataset.decode)
    frames = whole.select(lambda sample: len(sample["frames"]) == 128).to_tuple("frames", "__key__")
    first, keys = next(iter(frames.batched(4)))
    assert first.shape == (4, 128, DIM)
    assert len(set(keys)) == 4


def test_a_raw_tensor_shares_the_memory_of_the_bytes_that_were_read(built):
    path, codec, _ = built
    sample = _samples(path)[-1]
    frames = laughstore.webdataset.decode(sample)["frames"]
    if codec == "none":
        data = np.frombuffer(sample["bf16"], np.uint8)
        assert frames.data_ptr() == data.ctypes.data
    assert frames.is_contiguous()


@pytest.mark.parametrize("position", [0, 1, 1000, -5, -4, -1])
def test_a_flipped_bit_is_corrupt_data_that_names_the_sample(built, position):
    path, codec, _ = built
    sample = _samples(path)[3]
    data = bytearray(sample[member_suffix(codec)])
    data[position] ^= 0x10
    with pytest.raises(CorruptData, match=f"^sample '{sample['__key__']}': ") as caught:
        laughstore.webdataset.decode({**sample, member_suffix(codec): bytes(data)})
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_of_the_checksum_in_the_json_is_found(built):
    path, _, _ = built
    sample = _samples(path)[0]
    about = json.loads(sample["json"])
    crc = int(about["crc32c"], 16)
    for bit in range(32):
        changed = json.dumps({**about, "crc32c": f"{crc ^ 1 << bit:08x}"}).encode()
        with pytest.raises(CorruptData, match="crc32c"):
            laughstore.webdataset.decode({**sample, "json": changed})


ALTERED: dict[str, dict[str, object]] = {
    "another dim": {"shape": [128, 32]},
    "an odd dim": {"shape": [128, 63]},
    "a huge block": {"shape": [2**40, 64]},
    "a negative size": {"shape": [-128, 64]},
    "three axes": {"shape": [2, 64, 64]},
    "a shape of text": {"shape": "128x64"},
    "another dtype": {"dtype": "float16"},
    "no frames": {"num_frames": 0},
    "more frames than a block": {"num_frames": 129},
    "frames that are no number": {"num_frames": True},
    "another recording": {"recording": "b-00000000"},
    "a recording that climbs": {"recording": "../../b"},
    "another block": {"start_frame": 256},
    "between blocks": {"start_frame": 64},
    "a checksum that is none": {"crc32c": "zz"},
    "another codec": {"codec": "lz4"},
    "events that are none": {"events": [1]},
}


@pytest.mark.parametrize("changes", ALTERED.values(), ids=ALTERED)
def test_json_that_does_not_fit_its_member_is_refused(built, changes):
    path, _, _ = built
    sample = _samples(path)[0]
    about = json.dumps({**json.loads(sample["json"]), **changes}).encode()
    with pytest.raises(CorruptData, match=f"^sample '{sample['__key__']}'"):
        laughstore.webdataset.decode({**sample, "json": about})


def test_samples_of_another_codec_than_their_member_says_are_refused(built):
    path, codec, _ = built
    other: Codec = "zstd" if codec == "none" else "none"
    sample = _samples(path)[0]
    sample[member_suffix(other)] = sample.pop(member_suffix(codec))
    with pytest.raises(CorruptData, match="codec"):
        laughstore.webdataset.decode(sample)


def test_torch_is_loaded_when_a_sample_is_decoded_and_not_before():
    code = (
        "import sys, laughstore.webdataset\n"
        "heavy = {'torch', 'webdataset', 'zarr'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
