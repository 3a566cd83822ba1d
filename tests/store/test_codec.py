"""Blocks as members hold them: what is encoded is decoded, and nothing else is, nor trusted."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs.zstd import compress

from laughstore.codec import (
    CODECS,
    PAD_BITS,
    Codec,
    decode_block,
    encode_block,
    member_suffix,
    zstd_content_bytes,
)
from laughstore.errors import ConfigError, CorruptData
from laughstore.geometry import ShardGeometry
from laughstore.spec import FeatureSpec
from tests.stores import spec_for

SMALL = ShardGeometry(4)
"""1 KiB of rows a block."""
MAGIC = b"\x28\xb5\x2f\xfd"


def _frames(geometry, num_frames=128, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0x3F00, 0x3FFF, (num_frames, geometry.dim), np.uint16)


def _decode(data, codec: Codec = "zstd", geometry=SMALL, **more):
    return decode_block(data, codec, geometry, where="x.tar, block 3", **more)


def _frame(content, descriptor, field, window=b""):
    """A zstd frame of this content in raw blocks, with a header that says what we like."""
    blocks = []
    for start in range(0, len(content), 1 << 17):
        part = content[start : start + (1 << 17)]
        last = start + len(part) == len(content)
        blocks.append((len(part) << 3 | last).to_bytes(3, "little") + part)
    return MAGIC + bytes([descriptor]) + window + field + b"".join(blocks)


@given(
    st.sampled_from(CODECS), st.sampled_from([2, 64, 500, 4096]), st.integers(1, 128), st.booleans()
)
@settings(deadline=None)
def test_what_is_encoded_is_decoded(codec, dim, num_frames, noise):
    geometry = ShardGeometry(dim)
    frames = _frames(geometry, num_frames) if noise else np.zeros((num_frames, dim), np.uint16)
    content, crc = encode_block(frames, codec, geometry)
    assert len(content) <= geometry.max_encoded_bytes
    rows = _decode(content, codec, geometry, expected_crc32c=crc)
    assert rows.shape == (128, dim)
    assert rows.dtype == np.uint16
    np.testing.assert_array_equal(rows[:num_frames], frames)
    assert (rows[num_frames:] == PAD_BITS).all()


def test_the_checksum_is_of_the_rows_whatever_the_codec():
    raw, zstd = (encode_block(_frames(SMALL), codec, SMALL) for codec in CODECS)
    assert raw[1] == zstd[1]
    assert bytes(raw[0][-4:]) == raw[1].to_bytes(4, "little")
    assert zstd_content_bytes(zstd[0]) == len(raw[0]) == SMALL.content_bytes


def test_encoding_twice_gives_the_same_bytes():
    geometry = ShardGeometry(64)
    first, second = (encode_block(_frames(geometry), "zstd", geometry)[0] for _ in range(2))
    assert first == second


def test_noise_that_cannot_be_compressed_stays_below_the_bound():
    geometry = ShardGeometry(64)
    frames = np.frombuffer(np.random.default_rng(0).bytes(geometry.data_bytes), np.uint16)
    content, _ = encode_block(frames.reshape(128, 64), "zstd", geometry)
    assert geometry.content_bytes < len(content) <= geometry.max_encoded_bytes


def test_member_names():
    assert [member_suffix(codec) for codec in CODECS] == ["bf16", "bf16.zst"]


@pytest.mark.parametrize("codec", CODECS)
def test_every_flipped_bit_is_an_error_or_changes_nothing(codec):
    frames = _frames(SMALL)
    content = bytes(encode_block(frames, codec, SMALL)[0])
    silent = 0
    messages = []
    for position in range(len(content) * 8):
        altered = bytearray(content)
        altered[position // 8] ^= 1 << position % 8
        try:
            rows = _decode(bytes(altered), codec)
        except CorruptData as error:
            messages.append(str(error))
        else:
            np.testing.assert_array_equal(rows, frames)
            silent += 1
    assert all(message.startswith("x.tar, block 3: ") for message in messages)
    # A zstd frame holds a few bits without a meaning, such as the one its descriptor does not use.
    assert silent <= (0 if codec == "none" else 16)


@pytest.mark.parametrize("codec", CODECS)
def test_every_cut_and_every_addition_is_an_error(codec):
    content = bytes(encode_block(_frames(SMALL), codec, SMALL)[0])
    for num_bytes in range(len(content)):
        with pytest.raises(CorruptData):
            _decode(content[:num_bytes], codec)
    for more in (b"\0", b"\0\0\0\0", content, content[:100], MAGIC):
        with pytest.raises(CorruptData):
            _decode(content + more, codec)


@pytest.mark.parametrize("codec", CODECS)
def test_another_sound_block_is_an_error_when_the_index_is_asked(codec):
    _, crc = encode_block(_frames(SMALL), codec, SMALL)
    other, _ = encode_block(_frames(SMALL, seed=1), codec, SMALL)
    _decode(other, codec)
    with pytest.raises(CorruptData, match=f"the index says {crc:08x}"):
        _decode(other, codec, expected_crc32c=crc)


@pytest.mark.parametrize("claim", [0, 1, 1027, 1029, 1 << 20, 1 << 32, 1 << 50, 2**64 - 1])
@pytest.mark.parametrize("num_bytes", [0, 100, SMALL.content_bytes])
def test_a_claimed_size_is_refused_before_memory_is_taken(claim, num_bytes):
    frame = _frame(bytes(num_bytes), 0xC0, claim.to_bytes(8, "little"), window=b"\x50")
    assert zstd_content_bytes(frame) == claim
    tracemalloc.start()
    try:
        with pytest.raises(CorruptData, match=rf"says {claim} bytes"):
            _decode(frame)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_bombs_end_without_memory():
    bomb = compress(bytes(64 << 20), 1)
    claims_a_block = SMALL.content_bytes.to_bytes(8, "little")
    sizes = {
        "says its size": bomb,
        "says no size": _frame(bytes(64 << 10), 0x00, b"", window=b"\x50"),
        "says less than it holds": _frame(bytes(64 << 10), 0xC0, claims_a_block, window=b"\x50"),
        "a block, then more": bytes(encode_block(_frames(SMALL), "zstd", SMALL)[0]) + bomb,
    }
    for name, frame in sizes.items():
        tracemalloc.start()
        try:
            with pytest.raises(CorruptData):
                _decode(frame)
            assert tracemalloc.get_traced_memory()[1] < 200_000, name
        finally:
            tracemalloc.stop()


@given(st.binary(max_size=64), st.booleans())
@settings(deadline=None)
def test_no_bytes_at_all_break_the_decoder(data, with_magic):
    with pytest.raises(CorruptData):
        _decode(MAGIC + data if with_magic else data)
    with pytest.raises(CorruptData):
        _decode(data, "none")


@pytest.mark.parametrize(
    ("descriptor", "window", "field", "expected"),
    [
        (0x20, b"", b"\x07", 7),  # one segment: one byte
        (0x60, b"", b"\x07\x00", 263),  # two bytes count from 256
        (0xA0, b"", b"\x07\x00\x00\x00", 7),
        (0xE0, b"", b"\x07" + bytes(7), 7),
        (0x40, b"\x50", b"\x07\x00", 263),
        (0x80, b"\x50", b"\x07\x00\x00\x00", 7),
        (0x00, b"\x50", b"", None),  # no size
        (0xA1, b"", b"\x07\x00\x00\x00", None),  # a dictionary
        (0xA8, b"", b"\x07\x00\x00\x00", None),  # a reserved bit
    ],
)
def test_the_size_in_a_frame_header(descriptor, window, field, expected):
    # RFC 8878, 3.1.1.1.1 to 3.1.1.1.4
    assert zstd_content_bytes(_frame(b"x" * 7, descriptor, field, window)) == expected


@given(st.integers(0, 300_000), st.integers(-5, 22))
@settings(deadline=None, max_examples=50)
def test_the_size_is_read_from_whatever_numcodecs_writes(num_bytes, level):
    assert zstd_content_bytes(compress(bytes(num_bytes), level)) == num_bytes


def test_the_spec_says_the_codec_and_its_id_depends_on_it():
    none, zstd = (spec_for(64, codec=codec) for codec in CODECS)
    assert none.differences(zstd) == ["codec: none, zstd"]
    assert none.spec_id != zstd.spec_id
    assert FeatureSpec.from_json(zstd.to_json(), where="x") == zstd


def test_unknown_codecs_are_refused_by_name():
    with pytest.raises(ConfigError, match="codec is 'lz4'; use none or zstd"):
        spec_for(64, codec="lz4")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CorruptData, match="codec is 'lz4'"):
        FeatureSpec.from_json({**spec_for(64).to_json(), "codec": "lz4"}, where="x")
