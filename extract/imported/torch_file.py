"""`.pt` files of features, mapped and loaded with `weights_only`: no pickled code ever runs.

A file is an archive whose records are stored as they are. It is looked at before torch sees it: a
packed record could unpack to any size, and torch itself compares no checksum (it would load a
flipped bit as another number).
"""

import re
import zipfile
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from numpy.typing import NDArray

from laughstore.errors import BadRecording
from laughstore.files import is_passing, named_in_errors

from .files import FeatureFile, as_streams, refuse_dtype

FEATURES = "transformer_out"
METADATA = "metadata"
MAX_PICKLE_BYTES = 16 << 20
"""Of the record of everything that is no tensor; of a real file it has some kB."""
_PICKLE = "/data.pkl"
_FAULTS = (
    UnpicklingError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    AssertionError,
    OverflowError,
    MemoryError,
    OSError,
)
"""What torch raises of files that are not as they should be."""
_OF_SYSTEM = re.compile(r"unable to (?:open|mmap) .*>[a-z -]*: (.*?) \((\d+)\)")
"""What torch says of a file that the system would not map, with the number of the error."""
_PIECE_BYTES = 1 << 24


def open_pt(path: Path) -> FeatureFile:
    """Open a .pt file: a tensor, or a dictionary of `transformer_out` and `metadata`.

    Raises:
        BadRecording: it is none, was cut, holds something else, or would run code.
    """
    _check_archive(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _FAULTS as error:
        if is_passing(error):
            raise
        told = _OF_SYSTEM.match(str(error))
        if told is not None and is_passing(refused := OSError(int(told[2]), told[1], str(path))):
            raise refused from error
        raise _refused(path, error) from error
    metadata = None
    if isinstance(found, dict):
        metadata = found.get(METADATA)
        if metadata is not None and not isinstance(metadata, dict):
            raise BadRecording(f"{path}: {METADATA!r} is no dictionary; write it again")
        if FEATURES not in found:
            keys = ", ".join(str(key)[:30] for key in list(found)[:5])
            raise BadRecording(f"{path}: no tensor {FEATURES!r} (it has: {keys}); is it features?")
        found = found[FEATURES]
    rows = _numbers(path, found)
    return FeatureFile(path, rows, metadata, partial(_check_bytes, path))


def _numbers(path: Path, tensor: object) -> NDArray[Any]:  # Any: f4, f2 or u2
    """Return the numbers of a tensor as [A, T, D], without a copy."""
    if not isinstance(tensor, torch.Tensor) or type(tensor) not in (
        torch.Tensor,
        torch.nn.Parameter,
    ):
        raise BadRecording(f"{path}: holds a {type(tensor).__name__}, no tensor of features")
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise BadRecording(f"{path}: holds a sparse, quantized or empty tensor; save a plain one")
    streams = as_streams(path, tuple(tensor.shape))
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise refuse_dtype(path, str(tensor.dtype).removeprefix("torch."))
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise BadRecording(
            f"{path}: a tensor of shape {list(tensor.shape)} that shows the same few bytes again"
            " and again; save its contiguous() form"
        )
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view("u2").reshape(streams)
    return tensor.numpy().reshape(streams)


def _check_archive(path: Path) -> None:
    """Refuse an archive that is none, is packed, or says that it has more bytes than it has."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        if is_passing(error):
            raise
        raise BadRecording(
            f"{path}: is no whole file of torch.save (torch 1.6 or later); it was cut, or load it"
            " with the program that wrote it and save it again"
        ) from error
    is_packed = any(item.compress_type != zipfile.ZIP_STORED for item in records)
    if is_packed or sum(item.file_size for item in records) > size:
        raise BadRecording(f"{path}: a packed archive; torch.save writes none: save it again")
    for item in records:
        if item.filename.endswith(_PICKLE) and item.file_size > MAX_PICKLE_BYTES:
            raise BadRecording(
                f"{path}: {item.file_size >> 20} MiB of Python values beside its tensors; files of"
                " features have a few kB"
            )


def _check_bytes(path: Path) -> None:
    """Compare every record with the CRC-32 that the archive has of it."""
    try:
        with named_in_errors(path), zipfile.ZipFile(path) as archive:
            for item in archive.infolist():
                with archive.open(item) as record:
                    while record.read(_PIECE_BYTES):
                        pass
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        if is_passing(error):
            raise
        raise BadRecording(
            f"{path}: its bytes are not those that were saved ({error}); restore it, or extract"
            " this recording again"
        ) from error


def _refused(path: Path, error: BaseException) -> BadRecording:
    """Return one line about what torch said in many."""
    said = " ".join(str(error).split())
    named = re.search(r"GLOBAL ([\w.]+)", said)
    if isinstance(error, UnpicklingError):
        what = f" ({named[1]})" if named else ""
        return BadRecording(
            f"{path}: holds more than tensors and plain values{what}; it is not loaded, since that"
            " could run code: save the tensor alone"
        )
    return BadRecording(f"{path}: torch cannot load it ({said[:120]}); save it again")
