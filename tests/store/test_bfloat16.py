"""bfloat16 in Zarr: every bit pattern survives, under the registered name."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec

from laughstore.bfloat16 import BFLOAT16, BFloat16

ALL = np.arange(65536, dtype=np.uint16)


@pytest.mark.parametrize("endian", ["little", "big"])
def test_all_bit_patterns_survive(tmp_path, endian):
    array = zarr.create_array(
        tmp_path,
        shape=ALL.shape,
        chunks=(1000,),
        dtype="bfloat16",
        fill_value=float("nan"),
        serializer=BytesCodec(endian=endian),
        config={"write_empty_chunks": True},
    )
    array[:] = ALL.view(BFLOAT16)
    read = zarr.open_array(tmp_path, mode="r", config={"read_missing_chunks": False})
    assert read.dtype == np.dtype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.asarray(read[:]).view(np.uint16), ALL)
    assert '"data_type": "bfloat16"' in (tmp_path / "zarr.json").read_text()


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan"), 3.0e38]
)
def test_fill_values_survive_their_json_form(value):
    kind = BFloat16()
    scalar = ml_dtypes.bfloat16(value)
    back = kind.from_json_scalar(kind.to_json_scalar(scalar, zarr_format=3), zarr_format=3)
    assert np.array(back, BFLOAT16).tobytes() == np.array(scalar, BFLOAT16).tobytes()


def test_fill_values_may_be_hex_bits():
    assert np.isnan(np.float32(BFloat16().from_json_scalar("0x7fc1", zarr_format=3)))


def test_a_reader_that_imports_only_zarr_opens_the_array(tmp_path):
    array = zarr.create_array(tmp_path, shape=(3,), dtype="bfloat16", fill_value=float("nan"))
    array[:] = np.array([1, 2, 3], BFLOAT16)
    code = (
        f"import zarr; assert zarr.open_array({str(tmp_path)!r}, mode='r')[:].tolist() == [1, 2, 3]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_no_bfloat16_is_refused():
    with pytest.raises(TypeError):
        BFloat16().cast_scalar("much")
    with pytest.raises(ValueError, match="version 3 only"):
        BFloat16().to_json(2)
