"""Small checkpoints changed on purpose: other configurations, other tensors in the file."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

JsonObject = Mapping[str, Any]  # Any: a JSON object


def edit_json(path: Path, changes: JsonObject) -> None:
    """Set keys of a JSON object in a file; `a.b` is key b of the object a."""
    value = json.loads(path.read_text())
    for name, new in changes.items():
        *parents, key = name.split(".")
        owner = value
        for parent in parents:
            owner = owner[parent]
        owner[key] = new
    path.write_text(json.dumps(value))


def variant(checkpoint: Path, out: Path, config: JsonObject, *, mimi: JsonObject) -> Path:
    """Copy a checkpoint and change its two configurations."""
    shutil.copytree(checkpoint, out)
    edit_json(out / "config.json", config)
    edit_json(out / "mimi_config.json", mimi)
    return out


def edit_weights(
    path: Path, edit: Callable[[str, torch.Tensor], torch.Tensor | None]
) -> tuple[set[str], set[str]]:
    """Replace each tensor of a file by what `edit` makes of it; None leaves it out.

    Returns:
        The names that were kept as they are, and the others.
    """
    before = load_file(path)
    after = {name: edit(name, tensor) for name, tensor in before.items()}
    save_file({name: tensor for name, tensor in after.items() if tensor is not None}, path)
    kept = {name for name, tensor in after.items() if tensor is before[name]}
    return kept, set(before) - kept
