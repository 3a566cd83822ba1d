"""What can be asked of an import. No torch here: `laughstore import --help` reads this module.

The attributes' docstrings are the help of the command line.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import tyro

from laughstore.codec import Codec
from laughstore.errors import ConfigError
from laughstore.spec import (
    UNKNOWN,
    FeatureSpec,
    Speakers,
    StreamOrder,
    TextMode,
    restart_frames,
    tap_layers,
)
from laughstore.timebase import Span

from ..config import LayoutName

_NOT_STATED = "unknown"
_NONE = Span("0f")


@dataclass(frozen=True)
class ImportConfig:
    """An import: which files, of whose recordings, into which store.

    Raises:
        ConfigError: a field cannot work.
    """

    features: tyro.conf.Positional[Path]
    """Folder that the earlier scripts wrote: .pt or .npy files (docs/recipes/migrate.md)."""
    store: Path
    """Folder of the store; made if it does not exist, continued if the same import began it."""
    dataset: Path | None = None
    """Data set that the features were made from: its events, splits and lengths of audio."""
    layout: LayoutName = "auto"
    """How the data set is laid out; auto looks."""
    split: str = "all"
    """Import one split only."""
    recordings: str | None = None
    """Shell pattern: import only recordings whose name or id matches."""
    model: str = _NOT_STATED
    """The model they are of, as a Hugging Face repository or in words: recorded, not checked."""
    revision: str | None = None
    """Commit of the model's repository."""
    tap: str = _NOT_STATED
    """Where they were read: out_norm, layer:K, mimi or logmel."""
    context: str = _NOT_STATED
    """carry, or restart:SECONDS; the earlier scripts restarted every 210 s (restart:210)."""
    text: Literal["unknown", "none", "causal", "aligned"] = _NOT_STATED
    """Text stream that the model was fed; the earlier scripts fed words from their start
    (aligned)."""
    stream_order: Literal["unknown", "main-other", "legacy"] = _NOT_STATED
    """Order of the streams; the earlier scripts fed the text of other in front (legacy)."""
    speakers: Literal["unknown", "top2", "all-pairs", "mix"] = _NOT_STATED
    """Who is main: also tells whose the arrays of a file are that does not say (default for those:
    top2)."""
    length_tolerance: Span | Literal["off"] = _NONE
    """Take recordings whose frames differ from their audio by this much; frames behind its end are
    left out. off: lengths are not compared."""
    codec: Codec = "none"
    """How frames are stored: none (as they are; mapped when read) or zstd (smaller; not mapped)."""
    strict: bool = False
    """Fail at the first recording that cannot be imported, instead of leaving it out."""
    dry_run: bool = False
    """Only tell recordings, hours, GB, free disk and what would be left out; write nothing."""

    def __post_init__(self) -> None:
        if self.tap != _NOT_STATED:
            tap_layers(self.tap)
        if self.context != _NOT_STATED:
            restart_frames(self.context)
        if self.revision is not None and self.model == _NOT_STATED:
            raise ConfigError("--revision is of a model; give --model, too")
        if isinstance(self.length_tolerance, Span) and self.length_tolerance.us < 0:
            raise ConfigError(
                f"length_tolerance is {self.length_tolerance}; it must be 0f or more, or off"
            )

    @property
    def tolerance_frames(self) -> int | None:
        """Frames by which lengths may differ; None: they are not compared."""
        return self.length_tolerance.frames if isinstance(self.length_tolerance, Span) else None

    @property
    def places(self) -> tuple[Path, ...]:
        """Where the files are that it reads."""
        return (self.features,) if self.dataset is None else (self.features, self.dataset)

    @property
    def roles(self) -> Speakers:
        """Whose the arrays of a file are that does not say, by the data set."""
        return "top2" if self.speakers == _NOT_STATED else self.speakers

    def spec(self, dim: int) -> FeatureSpec:
        """Return the spec of what is imported: as stated, and unknown where nothing is."""
        return FeatureSpec(
            model=_stated(self.model),
            revision=self.revision,
            weights_sha256=UNKNOWN,
            dim=dim,
            numerics=None,
            tap=_stated(self.tap),
            stream_order=cast(StreamOrder, _stated(self.stream_order)),
            text=cast(TextMode, _stated(self.text)),
            context=_stated(self.context),
            speakers=cast(Speakers, _stated(self.speakers)),
            codec=self.codec,
        )


def _stated(value: str) -> str:
    return UNKNOWN if value == _NOT_STATED else value
