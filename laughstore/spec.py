"""The feature specification: everything that decides which numbers stand in a store.

Two specs never mix in one store. Paths, hosts and times are no part of it: the same model on the
same audio has the same `spec_id` wherever it is extracted.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import Any, Final, Literal, Self, get_args, get_origin, get_type_hints

from .codec import CODECS, Codec
from .errors import ConfigError, CorruptData
from .geometry import ShardGeometry
from .sealed import canonical_json
from .timebase import FRAME_US, microseconds
from .values import integer, mapping, text

EXTRACTOR_VERSION = 1
"""Raised only when the numbers that the extractor, or the import, writes change."""

Unknown = Literal["unknown (imported)"]
UNKNOWN: Final[Unknown] = "unknown (imported)"
"""In a spec of imported features, what nobody has stated."""

StreamOrder = Literal["main-other", "legacy"]
TextMode = Literal["none", "causal", "aligned"]
Speakers = Literal["top2", "all-pairs", "mix"]
CONTROLS = ("mimi", "logmel")
"""Taps that read the sound itself, to be compared with what Moshi makes of it."""


@dataclass(frozen=True)
class Numerics:
    """Settings that move the low bits of features, fixed so that a resumed build has equal bytes.

    Batching of rows does not move them; the frames in a call and the thread count do.
    """

    slots: int
    """Pairs of speakers extracted side by side; each is two Mimi rows and two LM rows of every
    call, and a mix two and one."""
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
class HowExtracted:
    """What it takes to extract more of the same features, besides model, tap and context."""

    numerics: Numerics
    stream_order: StreamOrder
    text: TextMode
    speakers: Speakers


@dataclass(frozen=True)
class FeatureSpec:
    """What features are: model, layer, inputs, dtype and layout. Hashed to `spec_id`.

    Raises:
        ConfigError: a field cannot be; or features that were extracted here have unknown ones.
    """

    model: str
    """Hugging Face repository, or `local` for a directory: its weights then tell it apart. Of
    imported features: as stated, in any words."""
    revision: str | None
    """Commit of the repository; None for a directory."""
    weights_sha256: str
    """Of the weights and configuration that features depend on."""
    dim: int
    """Channels of a frame (4096 for Moshi 7B)."""
    numerics: Numerics | None
    """None: the features were imported. Nobody can extract more that match them."""
    tap: str = "out_norm"
    """Where features are read: `out_norm` (behind the temporal transformer's last norm), `layer:K`
    (behind its first K layers, no norm), or a control: `mimi` (latents) or `logmel` (the sound)."""
    stream_order: StreamOrder | Unknown = "main-other"
    """Codes are [text of main | main 8 | other 8], the order that Moshi was trained with; legacy
    is [text of other | main | other]. One and the same, and `main-other`, without text."""
    text: TextMode | Unknown = "none"
    """Text stream: padding in every frame, which tells nothing about words; words when they have
    ended; or words from their start, which tells up to a word ahead (aligned)."""
    context: str = "carry"
    """`carry`: state is carried over the whole recording. `restart:S`: it begins anew every S
    seconds."""
    speakers: Speakers | Unknown = "top2"
    """The two speakers who speak longest, each main once; all pairs; or the mix of all."""
    dtype: Literal["bfloat16"] = "bfloat16"
    """Of the stored features."""
    block_frames: int = 128
    """Frames in a block: inner Zarr chunk, tar sample, unit of checksums."""
    shard_frames: int = 4096
    """Frames in a shard: outer Zarr chunk, tar file."""
    codec: Codec = "none"
    """How blocks are stored: as they are, so that files can be mapped, or as zstd frames."""
    extractor_version: int = EXTRACTOR_VERSION

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ConfigError(f"codec is {self.codec!r}; use {' or '.join(CODECS)}")
        if self.tap != UNKNOWN:
            tap_layers(self.tap)
        if self.context != UNKNOWN:
            restart_frames(self.context)
        settings = (self.tap, self.stream_order, self.text, self.context, self.speakers)
        if self.numerics is not None and UNKNOWN in (self.weights_sha256, *settings):
            raise ConfigError(f"only imported features can have {UNKNOWN!r} in their spec")

    @property
    def num_layers(self) -> int | None:
        """Layers of the temporal transformer that features come from; None: all and their norm."""
        return tap_layers(self.tap)

    @property
    def restart_frames(self) -> int | None:
        """Frames after which state begins anew; None: never."""
        return restart_frames(self.context)

    @property
    def is_imported(self) -> bool:
        """Whether features came from files of other programs, and were not extracted here."""
        return self.numerics is None

    def how_extracted(self) -> HowExtracted:
        """Return what it takes to extract more of the same features.

        Raises:
            ConfigError: they were imported: whatever is extracted would not match them.
        """
        if (
            self.numerics is None
            or self.stream_order == UNKNOWN
            or self.text == UNKNOWN
            or self.speakers == UNKNOWN
        ):
            raise ConfigError(
                "these features were imported, and what is extracted here would not be the same"
                " numbers; build a store from the recordings instead, and train on that"
            )
        return HowExtracted(self.numerics, self.stream_order, self.text, self.speakers)

    @property
    def is_control(self) -> bool:
        """Whether features are of the sound, and not of Moshi."""
        return self.tap in CONTROLS

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
            CorruptData: a field is missing, unknown or of a kind or value that this release does
                not write, or frames of this spec fit no shard.
        """
        values = _fields(cls, data, where=where)
        numerics = None
        if data["numerics"] is not None:
            numerics = _fields(Numerics, mapping(data["numerics"], where=where), where=where)
        try:
            made = None if numerics is None else Numerics(**numerics)
            spec = cls(**{**values, "numerics": made})
            ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
        except ConfigError as error:
            raise CorruptData(f"{where}: feature spec is malformed ({error})") from error
        return spec

    def differences(self, other: Self) -> list[str]:
        """Return `field: mine, theirs` for every field that differs."""
        mine, theirs = self.to_json(), other.to_json()
        if self.is_imported != other.is_imported:
            for item in (mine, theirs):
                item["numerics"] = UNKNOWN if item["numerics"] is None else "of an extraction"
        mine, theirs = _flat(mine), _flat(theirs)
        return [
            f"{name}: {mine[name]}, {theirs[name]}" for name in mine if mine[name] != theirs[name]
        ]


def tap_layers(tap: str) -> int | None:
    """Return K of `layer:K`, and None for the other taps.

    Raises:
        ConfigError: there is no such tap.
    """
    if tap == "out_norm" or tap in CONTROLS:
        return None
    layers = re.fullmatch(r"layer:([1-9][0-9]{0,3})", tap)
    if layers is None:
        raise ConfigError(
            f"tap is {tap!r}; use out_norm, layer:K (K from 1, as layer:24), mimi or logmel"
        )
    return int(layers[1])


def restart_frames(context: str) -> int | None:
    """Return the frames of `restart:S`, and None for `carry`.

    Raises:
        ConfigError: it is neither, or S is no whole number of frames.
    """
    if context == "carry":
        return None
    seconds = re.fullmatch(r"restart:([0-9]{1,6}(?:\.[0-9]{1,6})?)", context)
    length_us = microseconds(Decimal(seconds[1])) if seconds else 0
    if length_us < FRAME_US or length_us % FRAME_US:
        raise ConfigError(
            f"context is {context!r}; use carry, or restart:S with S seconds of whole frames of"
            " 80 ms, as restart:210"
        )
    return length_us // FRAME_US


def _fields(kind: type, data: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return the fields of a dataclass, each of its annotated type; nested ones are not checked."""
    known = {item.name for item in fields(kind)}
    if set(data) != known:
        odd = ", ".join(sorted(known ^ set(data)))[:200]
        raise CorruptData(
            f"{where}: the feature spec's fields differ from this release's ({odd});"
            " read it with the release that wrote it"
        )
    hints = get_type_hints(kind)
    for name in known:
        _check(hints[name], data, name, where=where)
    return dict(data)


def _check(hint: object, data: Mapping[str, Any], name: str, *, where: str) -> None:
    value = data[name]
    if allowed := _literals(hint):
        if not isinstance(value, str) or value not in allowed:
            raise CorruptData(
                f"{where}: {name} is {str(value)[:40]!r} in the feature spec; this release knows"
                f" {', '.join(allowed)}"
            )
    elif hint is int:
        integer(data, name, where=where, low=1)
    elif hint is bool:
        if not isinstance(value, bool):
            raise CorruptData(f"{where}: {name} of the feature spec is neither true nor false")
    elif hint is str or (hint == str | None and value is not None):
        text(data, name, where=where)


def _literals(hint: object) -> tuple[str, ...]:
    """Return the words that a field may hold, if it may hold words of a list only."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    options = get_args(hint)
    if not options or any(get_origin(option) is not Literal for option in options):
        return ()
    return tuple(word for option in options for word in get_args(option))


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
