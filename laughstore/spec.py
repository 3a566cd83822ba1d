"""The feature specification: everything that decides which numbers stand in a store.

Two specs never mix in one store. Paths, hosts and times are no part of it: the same model on the
same audio has the same `spec_id` wherever it is extracted.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from .errors import ConfigError, CorruptData
from .sealed import canonical_json

EXTRACTOR_VERSION = 1
"""Raised only when the numbers that the extractor writes change."""

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Numerics:
    """Settings that move the low bits of features, fixed so that a resumed build has equal bytes.

    Batching of rows does not move them; the frames in a call and the thread count do.
    """

    slots: int
    """Recordings extracted side by side; each is two Mimi rows and two LM rows of every call."""
    chunk_frames: int
    """Frames in every call, the last included."""
    threads: int
    """CPU threads of torch (intra-op)."""
    compute_dtype: Literal["bfloat16", "float32"]
    """Of the language model's weights and activations. Mimi is float32 always."""
    allow_tf32: bool
    """Whether CUDA may round float32 products to TF32 (Mimi's convolutions)."""

    def __post_init__(self) -> None:
        for name in ("slots", "chunk_frames", "threads"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"numerics.{name} is {value}; it must be at least 1")


@dataclass(frozen=True)
class FeatureSpec:
    """What features are: model, layer, inputs, dtype and layout. Hashed to `spec_id`."""

    model: str
    """Hugging Face repository, or `local` for a directory: its weights then tell it apart."""
    revision: str | None
    """Commit of the repository; None for a directory."""
    weights_sha256: str
    """Of the weights and configuration that features depend on."""
    dim: int
    """Channels of a frame (4096 for Moshi 7B)."""
    numerics: Numerics
    tap: Literal["out_norm"] = "out_norm"
    """Where the hidden state is read: after the temporal transformer's last norm."""
    stream_order: Literal["main-other"] = "main-other"
    """Codes are [text of main | main 8 | other 8], the order that Moshi was trained with."""
    text: Literal["none"] = "none"
    """Text stream: padding in every frame, which tells nothing about words."""
    context: Literal["carry"] = "carry"
    """State is carried over the whole recording."""
    speakers: Literal["top2"] = "top2"
    """The two speakers who speak longest; each is main once."""
    dtype: Literal["bfloat16"] = "bfloat16"
    """Of the stored features."""
    block_frames: int = 128
    """Frames in a block: inner Zarr chunk, tar sample, unit of checksums."""
    shard_frames: int = 4096
    """Frames in a shard: outer Zarr chunk, tar file."""
    codec: Literal["none"] = "none"
    extractor_version: int = EXTRACTOR_VERSION

    @property
    def spec_id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(canonical_json(self.to_json())).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:  # Any: a JSON object
        """Return the spec as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str) -> Self:
        """Return the spec that `to_json` wrote.

        Raises:
            CorruptData: a field is missing or unknown: another version of laughstore wrote it.
        """
        known = {item.name for item in fields(cls)}
        if set(data) != known:
            odd = ", ".join(sorted(known ^ set(data)))
            raise CorruptData(
                f"{where}: the feature spec's fields differ from this release's ({odd});"
                " read it with the release that wrote it"
            )
        try:
            return cls(**{**data, "numerics": Numerics(**data["numerics"])})
        except TypeError as error:
            raise CorruptData(f"{where}: feature spec is malformed ({error})") from error

    def differences(self, other: Self) -> list[str]:
        """Return `field: mine, theirs` for every field that differs."""
        mine, theirs = _flat(self.to_json()), _flat(other.to_json())
        return [
            f"{name}: {mine[name]}, {theirs[name]}" for name in mine if mine[name] != theirs[name]
        ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
