"""laughstore: the feature store for laughter in podcast audio, on the hidden states of Moshi.

`open_store` opens a finished store, `open_shards` its shards alone, `open_rows` gives a split as
one matrix. Nothing here imports torch; extraction lives in `extract`, training in `train`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    BadRecording,
    ConfigError,
    CorruptData,
    IncompleteStore,
    LaughstoreError,
    MissingExtra,
    NotFound,
    SpecMismatch,
    Unreachable,
)

if TYPE_CHECKING:
    from .annotations import Annotations, Event
    from .epochs import EpochEvent, Epochs
    from .index import Index, Recording, Stream
    from .labels import LabelSpec, Targets, frame_targets
    from .reading.row_table import FramePlace
    from .reading.rows import Rows, open_rows
    from .spec import FeatureSpec
    from .store import Block, Store, open_shards, open_store
    from .timebase import Span

__version__ = "0.1.0"

_LAZY = {
    "Annotations": ".annotations",
    "Block": ".store",
    "EpochEvent": ".epochs",
    "Epochs": ".epochs",
    "Event": ".annotations",
    "FeatureSpec": ".spec",
    "FramePlace": ".reading.row_table",
    "Index": ".index",
    "LabelSpec": ".labels",
    "Recording": ".index",
    "Rows": ".reading.rows",
    "Span": ".timebase",
    "Store": ".store",
    "Stream": ".index",
    "Targets": ".labels",
    "frame_targets": ".labels",
    "open_rows": ".reading.rows",
    "open_shards": ".store",
    "open_store": ".store",
}
"""Public names that need numpy or zarr: imported on first use, so that the CLI starts fast."""

__all__ = [
    "Annotations",
    "BadRecording",
    "Block",
    "ConfigError",
    "CorruptData",
    "EpochEvent",
    "Epochs",
    "Event",
    "FeatureSpec",
    "FramePlace",
    "IncompleteStore",
    "Index",
    "LabelSpec",
    "LaughstoreError",
    "MissingExtra",
    "NotFound",
    "Recording",
    "Rows",
    "Span",
    "SpecMismatch",
    "Store",
    "Stream",
    "Targets",
    "Unreachable",
    "__version__",
    "frame_targets",
    "open_rows",
    "open_shards",
    "open_store",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
