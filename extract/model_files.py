"""The files of a model: found in a directory, or in a Hugging Face repository with its commit.

In: a directory or the name of a repository. Out: `ModelFiles`, the paths of the weights and the
parsed configurations, found by moshi's own loaders. Nothing is loaded into memory here.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from moshi.models import loaders

from laughstore.errors import ConfigError, NotFound
from laughstore.files import sha256_file
from laughstore.sealed import canonical_json

from .config import is_model_directory

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelFiles:
    """Where the files of a model are, and which model that is."""

    repo: str
    """Hugging Face repository, or `local` for a directory."""
    revision: str | None
    """Commit (40 hex digits) of the repository; None for a directory."""
    checkpoint: loaders.CheckpointInfo
    """The files and parsed configurations, as moshi's loaders take them."""

    @property
    def lm_path(self) -> Path:
        """Weights of Moshi (safetensors)."""
        return Path(self.checkpoint.moshi_weights)

    @property
    def mimi_path(self) -> Path:
        """Weights of Mimi (safetensors)."""
        return Path(self.checkpoint.mimi_weights)

    @property
    def tokenizer_path(self) -> Path:
        """The sentencepiece model of the text stream."""
        return Path(self.checkpoint.tokenizer)

    @property
    def config(self) -> Mapping[str, Any]:  # Any: a JSON object
        """Keyword arguments of the language model; those of Moshi 7B if the files name none."""
        return self.checkpoint.lm_config or loaders._lm_kwargs

    def weights_sha256(self, tap: str = "out_norm", *, text: bool = False) -> str:
        """Return one digest over the weights and configurations that features depend on.

        Reads the files whole: about 15 s for the released model from a page cache.

        Args:
            tap: where features are read; Mimi's latents depend on Mimi alone.
            text: whether words are fed, so that the tokenizer matters.
        """
        parts = {
            "mimi": sha256_file(self.mimi_path),
            "mimi_config": self.checkpoint.mimi_config or loaders._mimi_config,
        }
        if tap != "mimi":
            parts |= {"lm": sha256_file(self.lm_path), "lm_config": dict(self.config)}
        if text:
            parts["tokenizer"] = sha256_file(self.tokenizer_path)
        return hashlib.sha256(canonical_json(parts)).hexdigest()


def resolve_model(model: str, revision: str | None = None) -> ModelFiles:
    """Find the files of a model, downloading those of a repository that are not cached.

    Args:
        model: a directory, or the name of a Hugging Face repository.
        revision: commit, tag or branch of a repository; None is its main branch.

    Raises:
        NotFound: no such directory, file, repository or revision, or the hub is out of reach.
        ConfigError: a directory together with a revision, a gated repository.
    """
    if is_model_directory(model):
        if revision is not None:
            raise ConfigError(
                f"model {model} is a directory and has no revision {revision!r}: leave the "
                "revision out, or name a Hugging Face repository"
            )
        return ModelFiles("local", None, _local_checkpoint(Path(model).expanduser()))
    checkpoint = _hub_checkpoint(model, revision)
    return ModelFiles(model, _commit(checkpoint), checkpoint)


def _local_checkpoint(directory: Path) -> loaders.CheckpointInfo:
    config_path = directory / "config.json"
    if not config_path.is_file():
        raise NotFound(
            f"model directory {directory} has no config.json: give a directory with the files of "
            "a Moshi repository, or make a small one with: laughstore tiny-checkpoint DIR"
        )
    config = _read_json_object(config_path)
    if config.get("lora_name"):
        raise ConfigError(f"{config_path}: LoRA weights are not supported; merge them first")
    names = {
        "moshi_weights": config.get("moshi_name", loaders.MOSHI_NAME),
        "mimi_weights": config.get("mimi_name", loaders.MIMI_NAME),
        "tokenizer": config.get("tokenizer_name", loaders.TEXT_TOKENIZER_NAME),
        "mimi_config_path": config.get("mimi_config_name"),
    }
    paths = {key: directory / str(name) for key, name in names.items() if name is not None}
    for path in paths.values():
        if not path.is_file():
            raise NotFound(
                f"model directory {directory} has no {path.name}, which its config.json names: "
                "copy the file there, or correct config.json"
            )
    if "mimi_config_path" in paths:
        _read_json_object(paths["mimi_config_path"])
    # With every path given, nothing asks the hub; the repository's name is not used.
    return loaders.CheckpointInfo.from_hf_repo(
        "local",
        moshi_weights=paths["moshi_weights"],
        mimi_weights=paths["mimi_weights"],
        tokenizer=paths["tokenizer"],
        config_path=config_path,
        mimi_config_path=paths.get("mimi_config_path"),
    )


def _hub_checkpoint(repo: str, revision: str | None) -> loaders.CheckpointInfo:
    at = f"{repo} at revision {revision}" if revision is not None else repo
    try:
        with warnings.catch_warnings():
            # moshi warns that a repository without config.json is taken for Moshi 7B, also when
            # it merely could not be reached. The strict load finds out whether that holds.
            warnings.filterwarnings("ignore", message=".*contains no config.json")
            return loaders.CheckpointInfo.from_hf_repo(repo, revision=revision)
    except HFValidationError as error:
        raise NotFound(
            f"model {repo}: no such directory, and not the name of a Hugging Face repository "
            "(OWNER/NAME): correct the path"
        ) from error
    except GatedRepoError as error:
        raise ConfigError(
            f"model {at}: the repository is gated; accept its terms on huggingface.co, then run: "
            "huggingface-cli login"
        ) from error
    except RevisionNotFoundError as error:
        raise NotFound(f"model {at}: no such revision; give a commit, tag or branch") from error
    except RepositoryNotFoundError as error:
        raise NotFound(
            f"model {at}: no such directory and no such Hugging Face repository (or a private "
            "one: huggingface-cli login)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise NotFound(
            f"model {at}: no such directory, not in the local Hugging Face cache, and the hub "
            "cannot be reached: connect once to download it, or give a model directory"
        ) from error
    except EntryNotFoundError as error:
        raise NotFound(
            f"model {at}: the repository lacks a file of a Moshi model ({first_line(error)})"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise NotFound(
            f"model {at}: the download failed ({first_line(error)}): run again, or give a model "
            "directory"
        ) from error


def _commit(checkpoint: loaders.CheckpointInfo) -> str:
    """Return the commit a cached repository stands at: the folder name of its snapshot."""
    commit = Path(checkpoint.moshi_weights).parent.name
    if not _COMMIT.fullmatch(commit):
        raise ConfigError(
            f"{checkpoint.moshi_weights} is not in a snapshot of the Hugging Face cache, so its "
            "commit is unknown: give its directory as the model"
        )
    return commit


def _read_json_object(path: Path) -> dict[str, Any]:  # Any: a JSON object
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return value


def first_line(error: Exception) -> str:
    """Return what an error says, cut to one line, for use inside one of our messages."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
