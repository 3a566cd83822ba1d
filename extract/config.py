"""What can be asked of a build. No torch here: `laughstore build --help` reads this module.

The attributes' docstrings are the help of the command line.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from laughstore.codec import Codec
from laughstore.errors import ConfigError

DEFAULT_MODEL = "kyutai/moshiko-pytorch-bf16"
MOSHI_DIM = 4096
"""Channels of Moshi 7B's hidden state: what a dry run counts with before the model is fetched."""
ROWS_PER_RECORDING = 2
"""Rows of the language model's batch that a recording takes: one for each assignment."""
DEFAULT_ROWS = {"cuda": 8, "cpu": 2}
DEFAULT_CHUNK_FRAMES = {"cuda": 256, "cpu": 128}


@dataclass(frozen=True)
class BuildConfig:
    """A build: which recordings, through which model, into which store.

    Raises:
        ConfigError: a field cannot work.
    """

    dataset: tyro.conf.Positional[Path]
    """Folder of the data set: per-speaker PodcastFillers layout (docs/datasets.md)."""
    store: Path
    """Folder of the store; made if it does not exist, continued if the same build began it."""
    model: str = DEFAULT_MODEL
    """Hugging Face repository, or a directory with config.json and the files it names."""
    revision: str | None = None
    """Commit, branch or tag of the repository; the commit it stands for is recorded."""
    split: str = "all"
    """Build one split only."""
    recordings: str | None = None
    """Shell pattern: build only recordings whose name or id matches."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto (cuda if there is one)."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the language model computes in: bfloat16 on cuda, float32 on cpu."""
    rows: int | None = None
    """Rows of the language model's batch, two a recording (default: 8 on cuda, 2 on cpu)."""
    chunk_frames: int | None = None
    """Frames in each call of the model (default: 256 on cuda, 128 on cpu)."""
    codec: Codec = "none"
    """How frames are stored: none (as they are; mapped when read) or zstd (smaller; not mapped)."""
    strict: bool = False
    """Fail at the first recording that cannot be built, instead of leaving it out."""
    dry_run: bool = False
    """Only tell hours, frames, GB, free disk and gaps; load no model, write nothing."""

    def __post_init__(self) -> None:
        if self.rows is not None and (self.rows < 1 or self.rows % ROWS_PER_RECORDING):
            raise ConfigError(f"rows is {self.rows}; it must be a multiple of {ROWS_PER_RECORDING}")
        if self.chunk_frames is not None and self.chunk_frames < 1:
            raise ConfigError(f"chunk_frames is {self.chunk_frames}; it must be at least 1")


@dataclass(frozen=True)
class AddConfig:
    """An addition: which recordings go into a store that was finished.

    Raises:
        ConfigError: a field cannot work.
    """

    store: tyro.conf.Positional[Path]
    """A finished store."""
    dataset: tyro.conf.Positional[Path]
    """Folder of a data set; recordings that the store has are passed over."""
    model: str | None = None
    """The model that the store was built with; needed when that was a directory."""
    split: str = "all"
    """Add one split only."""
    recordings: str | None = None
    """Shell pattern: add only recordings whose name or id matches."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto; of the kind that the store was built on."""
    rows: int | None = None
    """Rows of the language model's batch; those of the store, another number is refused."""
    strict: bool = False
    """Fail at the first recording that cannot be built, instead of leaving it out."""
    dry_run: bool = False
    """Only tell hours, frames, GB, free disk and gaps; load no model, write nothing."""

    def build_config(self, *, model: str, revision: str | None, codec: Codec) -> BuildConfig:
        """Return the build that extracts the same way as the store's own."""
        return BuildConfig(
            dataset=self.dataset,
            store=self.store,
            model=model,
            revision=revision,
            split=self.split,
            recordings=self.recordings,
            device=self.device,
            rows=self.rows,
            codec=codec,
            strict=self.strict,
            dry_run=self.dry_run,
        )
