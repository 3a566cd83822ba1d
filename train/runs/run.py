"""The folder of a training run: what it holds, how it begins, how it is read back. No torch here.

config.json          sealed: the config, the features' spec, counts, versions; written first
metrics.jsonl        one JSON object a line, as training goes
tensorboard/         the same numbers as event files
checkpoints/         see `train.runs.checkpoint`
evaluation/<split>/  made by `train.evaluate`
operating/           what was fitted on validation, by checkpoint (see `train.evaluation.operating`)
test_looks.jsonl     one line a look at a split that neither trains nor chooses (`train.runs.looks`)
probes/<name>/       of a run of many probes: a run for each (see `train.probes.probe_runs`)
.lock                held by the process that trains it
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from laughstore.errors import ConfigError, CorruptData, NotFound
from laughstore.folders import is_url
from laughstore.index import Index
from laughstore.new_folder import write_folder
from laughstore.other_annotations import tables_digest
from laughstore.sealed import seal, unseal
from laughstore.spec import FeatureSpec

from ..config import TrainConfig
from .folds import Fold

RUN_FORMAT = "laughstore-run"
RUN_VERSION = 1
_CONFIG, _LOG, _CHECKPOINTS = "config.json", "metrics.jsonl", "checkpoints"
_PACKAGES = ("laughstore", "numpy", "scikit-learn", "torch")


@dataclass(frozen=True)
class Run:
    """A training run's folder and what it was made from."""

    path: Path
    config: TrainConfig
    spec: FeatureSpec
    """Of the features it was trained on; only such features can be scored."""
    index_id: str
    """Of the index it was trained on."""
    sha256: str
    """Of config.json."""
    about: dict[str, Any]  # Any: JSON values
    """Counts of rows, the store's generation, and versions of what trained it."""

    @property
    def identity(self) -> dict[str, Any]:  # Any: JSON values
        """What a checkpoint says about the run that it is of, as a JSON object."""
        return {
            "config_sha256": self.sha256,
            "label": self.config.label.identity(),
            "spec_id": self.spec.spec_id,
        }

    @property
    def fold(self) -> Fold | None:
        """Groups of each side, of a run on one of several folds."""
        if self.config.folds is None:
            return None
        return Fold.from_json(self.about.get("fold"), where=str(self.path / _CONFIG))

    @property
    def skip(self) -> tuple[str, ...]:
        """Keys of the blocks of all splits that were left out as corrupt, as the list was then."""
        return tuple(self.about.get("skip", ()))

    @property
    def probe_of(self) -> str | None:
        """Folder of the run that this is a probe of; None for a run of its own."""
        return self.about.get("probe_of")

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / _CHECKPOINTS

    @property
    def metrics_log(self) -> Path:
        """The JSON-lines log."""
        return self.path / _LOG

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of its steps: no checkpoint, and no line of the log."""
        if self.checkpoints.exists():
            return False
        return not (self.metrics_log.exists() and self.metrics_log.stat().st_size)

    @classmethod
    def create(
        cls,
        config: TrainConfig,
        index: Index,
        counts: dict[str, Any],
        *,
        fold: Fold | None = None,
        skip: Sequence[str] = (),
        more: Mapping[str, Any] | None = None,
        holding: Callable[[Self], Mapping[str, bytes]] | None = None,
    ) -> Self:
        """Make the folder of a new run.

        Args:
            config: of the run; its paths are kept absolute, so that the run can be used from
                wherever it is opened.
            index: of the shards it trains on.
            counts: JSON object of rows and positives of each split used.
            fold: the groups of each side, of a run on one of several folds.
            skip: keys of the blocks that are left out as corrupt, of all splits.
            more: JSON object of what else it is to say about itself.
            holding: returns files that its folder is to begin with, by their paths in it.

        Raises:
            ConfigError: the folder exists.
        """
        check_absent(config.out)
        # A URL as it is told to others: without the credentials that it may hold.
        here = index.where if is_url(str(config.shards)) else Path(config.shards).absolute()
        listed = config.skip_corrupt
        kept = replace(
            config,
            shards=here,
            out=config.out.absolute(),
            skip_corrupt=None if listed is None else listed.absolute(),
            cache=None,
            preload="none",
        )
        about: dict[str, Any] = {
            "counts": counts,
            "generation": index.generation,
            "versions": dict(versions()),
            **(more or {}),
        }
        if config.annotations is not None:
            kept = replace(kept, annotations=config.annotations.absolute())
            about["annotations_sha256"] = tables_digest(index)
        if listed is not None:
            about["skip"] = sorted(set(skip))
        if fold is not None:
            about["fold"] = fold.to_json()
        content = {
            "format": RUN_FORMAT,
            "version": RUN_VERSION,
            "config": kept.to_json(),
            "spec": index.spec.to_json(),
            "spec_id": index.spec_id,
            "index_id": index.index_id,
            "about": about,
        }
        data = seal(content)
        _, sha256 = unseal(data, where=_CONFIG)
        run = cls(config.out, kept, index.spec, index.index_id, sha256, about)
        # Under its name only once it is a run: what kills this process leaves one or nothing.
        write_folder(config.out, {_CONFIG: data, **(holding(run) if holding else {})})
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return an existing run.

        Raises:
            NotFound: there is no run at this path.
            CorruptData: its config.json was altered, or is of another release.
        """
        config_path = path / _CONFIG
        try:
            data = config_path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(
                f"{path} holds no {_CONFIG}: it is no training run; give the folder that"
                " laughstore train --out made"
            ) from error
        content, sha256 = unseal(data, where=str(config_path))
        if (content.get("format"), content.get("version")) != (RUN_FORMAT, RUN_VERSION):
            raise CorruptData(
                f"{config_path}: {content.get('format')} version {content.get('version')} is not"
                f" readable; this release reads {RUN_FORMAT} version {RUN_VERSION}"
            )
        return cls(
            path,
            TrainConfig.from_json(content["config"], where=str(config_path)),
            FeatureSpec.from_json(content["spec"], where=str(config_path)),
            content["index_id"],
            sha256,
            content["about"],
        )


def is_run(path: Path) -> bool:
    """Whether there is a run at this path, sound or not."""
    return (path / _CONFIG).is_file()


def check_absent(path: Path) -> None:
    """Raise a ConfigError when something exists at the path of a new run."""
    if is_run(path) and not any((path / _CHECKPOINTS).glob("step-*")):
        raise ConfigError(
            f"{path} holds a run that has saved no checkpoint ({path / _LOG} tells how far it"
            " came); choose another --out, delete it, or begin it again with the same settings:"
            " --resume"
        )
    if path.exists() or path.is_symlink():
        raise ConfigError(
            f"{path} exists; choose another --out, delete it, or go on with it: --resume"
        )


@cache
def versions() -> Mapping[str, str]:
    """Return the versions of what computes, by name."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return MappingProxyType(found)
