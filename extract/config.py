"""What can be asked of a build. No torch here: `laughstore build --help` reads this module.

The attributes' docstrings are the help of the command line.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from laughstore.codec import Codec
from laughstore.errors import ConfigError, NotFound
from laughstore.parts import Part
from laughstore.spec import (
    CONTROLS,
    FeatureSpec,
    Speakers,
    StreamOrder,
    TextMode,
    restart_frames,
    tap_layers,
)

LayoutName = Literal["auto", "podcastfillers", "per-speaker", "manifest"]
DEFAULT_MODEL = "kyutai/moshiko-pytorch-bf16"
MOSHI_DIM = 4096
"""Channels of Moshi 7B's hidden state: what a dry run counts with before the model is fetched."""
MIMI_DIM = 1024
"""Of Mimi's latents, both sides together."""
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
ROWS_PER_RECORDING = 2
"""Rows of the language model's batch that a pair of speakers takes: one for each assignment."""
ROWS_PER_MIX = 1
DEFAULT_ROWS = {"cuda": 8, "cpu": 2}
DEFAULT_CHUNK_FRAMES = {"cuda": 256, "cpu": 128}


@dataclass(frozen=True)
class BuildConfig:
    """A build: which recordings, through which model, into which store.

    Raises:
        ConfigError: a field cannot work.
    """

    dataset: tyro.conf.Positional[Path]
    """Folder of a data set, or a manifest (*.jsonl): docs/datasets.md."""
    store: Path
    """Folder of the store; made if it does not exist, continued if the same build began it."""
    model: str = DEFAULT_MODEL
    """Hugging Face repository, or a directory with config.json and the files it names."""
    revision: str | None = None
    """Commit, branch or tag of the repository; the commit it stands for is recorded (default: the
    one that the store was begun with, or else main)."""
    split: str = "all"
    """Build one split only."""
    recordings: str | None = None
    """Shell pattern: build only recordings whose name or id matches."""
    layout: LayoutName = "auto"
    """How the data set is laid out; auto looks."""
    speakers: Speakers = "top2"
    """Who is main: each of the two who speak longest (top2), every ordered pair (all-pairs), or
    nobody: the mix of all is heard (mix)."""
    text: TextMode = "none"
    """Text stream: none, causal (a word once it has ended) or aligned (as Moshi was trained; tells
    up to a word ahead)."""
    stream_order: StreamOrder = "main-other"
    """main-other, or legacy: with the text of other in front, as an earlier pipeline had it."""
    context: str = "carry"
    """carry state over a whole recording, or restart:SECONDS, as restart:210."""
    tap: str = "out_norm"
    """What is stored: out_norm, layer:K, or a control: mimi (latents) or logmel."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto (cuda if there is one; under torchrun that of the local rank)."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the language model computes in: bfloat16 on cuda, float32 on cpu."""
    rows: int | None = None
    """Rows of the language model's batch: two a pair of speakers, one a mix (default: 8 on cuda, 2
    on cpu)."""
    chunk_frames: int | None = None
    """Frames in each call of the model (default: 256 on cuda, 128 on cpu)."""
    threads: int | None = None
    """Threads of each process on a CPU (default: 1, or as the store was begun); they are part of
    the spec. To use more cores, start more processes (--nproc) as long as memory allows."""
    allow_tf32: bool = False
    """Let CUDA round float32 products to TF32: Mimi is faster, some codes differ."""
    codec: Codec = "none"
    """How frames are stored: none (as they are; mapped when read) or zstd (smaller; not mapped)."""
    strict: bool = False
    """Fail at the first recording that cannot be built, instead of leaving it out."""
    nproc: int | None = None
    """Worker processes on this machine; one that dies is started again. Default: this process."""
    part: str | None = None
    """I/N: build the I-th of N parts (from 1), for array jobs."""
    commit: bool = False
    """Extract nothing: finish the store from what its parts have built."""
    partial: bool = False
    """With --commit: leave out recordings that have not been built."""
    allow_mixed_devices: bool = False
    """Go on with a store that was begun on another kind of device; low bits differ, recorded."""
    dry_run: bool = False
    """Only tell hours, frames, GB, free disk and gaps; load no model, write nothing."""

    def __post_init__(self) -> None:
        tap_layers(self.tap)
        restart_frames(self.context)
        if self.tap in CONTROLS and (self.text != "none" or self.stream_order != "main-other"):
            raise ConfigError(f"tap {self.tap} hears no text; leave --text and --stream-order out")
        if self.speakers == "mix" and self.text != "none":
            raise ConfigError("a mix has no main speaker whose words could be fed; use --text none")
        if self.nproc is not None and self.nproc < 1:
            raise ConfigError(f"nproc is {self.nproc}; it must be at least 1")
        if self.part is not None:
            Part.parse(self.part)
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; it must be at least 1")
        if self.commit and (self.nproc or self.part or self.dry_run):
            raise ConfigError("--commit extracts nothing; leave --nproc, --part and --dry-run out")
        if self.partial and not self.commit:
            raise ConfigError("--partial goes with --commit; add it, or leave --partial out")
        if self.rows is not None and (self.rows < 1 or self.rows % self.rows_per_slot):
            raise ConfigError(f"rows is {self.rows}; it must be a multiple of {self.rows_per_slot}")
        if self.chunk_frames is not None and self.chunk_frames < 1:
            raise ConfigError(f"chunk_frames is {self.chunk_frames}; it must be at least 1")

    @property
    def rows_per_slot(self) -> int:
        """Rows of the language model's batch for each pair of sides."""
        return ROWS_PER_MIX if self.speakers == "mix" else ROWS_PER_RECORDING


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
    layout: LayoutName = "auto"
    """How the data set is laid out; auto looks."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto; of the kind that the store was built on."""
    rows: int | None = None
    """Rows of the language model's batch; those of the store, another number is refused."""
    strict: bool = False
    """Fail at the first recording that cannot be built, instead of leaving it out."""
    dry_run: bool = False
    """Only tell hours, frames, GB, free disk and gaps; load no model, write nothing."""

    def build_config(self, *, model: str, revision: str | None, spec: FeatureSpec) -> BuildConfig:
        """Return the build that extracts the same way as the store's own, which is of this spec.

        Raises:
            ConfigError: the store's features were imported.
        """
        how = spec.how_extracted()
        return BuildConfig(
            dataset=self.dataset,
            store=self.store,
            model=model,
            revision=revision,
            split=self.split,
            recordings=self.recordings,
            layout=self.layout,
            speakers=how.speakers,
            text=how.text,
            stream_order=how.stream_order,
            context=spec.context,
            tap=spec.tap,
            device=self.device,
            rows=self.rows,
            allow_tf32=how.numerics.allow_tf32,
            codec=spec.codec,
            strict=self.strict,
            dry_run=self.dry_run,
        )


def is_model_directory(model: str) -> bool:
    """Tell whether a model is a directory rather than a Hugging Face repository. Asks nobody.

    Raises:
        NotFound: it can be neither.
    """
    if Path(model).expanduser().is_dir():
        return True
    if not _REPOSITORY.fullmatch(model):
        raise NotFound(
            f"model {model}: no such directory, and not the name of a Hugging Face repository"
            " (OWNER/NAME): correct the path"
        )
    return False
