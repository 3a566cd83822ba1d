"""`laughstore tiny-checkpoint`: a small random Moshi checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from .flags import CommonFlags, parse
from .text import program


@dataclass(frozen=True)
class _Flags:
    out: tyro.conf.Positional[Path]
    """Folder to write; it must not exist or be empty."""
    common: CommonFlags
    size: Literal["nano", "narrow", "wide"] = "wide"
    """nano: 64 channels; narrow: 512; wide: 4096, frames as large as those of Moshi 7B."""
    seed: int = 0
    """Of the random weights."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "tiny-checkpoint",
        arguments,
        "Write a small, randomly initialised Moshi checkpoint: real files, loaders and shapes, no"
        " training. Its features tell sounds apart, not words.",
    )
    flags.common.configure_logging()
    from extract.synthetic.tiny_checkpoint import write_tiny_checkpoint

    path = write_tiny_checkpoint(flags.out, size=flags.size, seed=flags.seed)
    num_bytes = sum(item.stat().st_size for item in path.iterdir())
    if flags.common.json:
        print(json.dumps({"checkpoint": str(path), "bytes": num_bytes}))
    else:
        print(f"checkpoint: {path} ({num_bytes / 1e6:.1f} MB)")
        print(f"next: {program()} build DATASET --store STORE --model {path}")
    return 0
