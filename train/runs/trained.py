"""A trained run, opened to score with: the rows it may be asked about, and its checkpoint.

Everything that would make its scores mean something else is refused or told here.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from laughstore.errors import ConfigError, CorruptData, SpecMismatch
from laughstore.index import Index
from laughstore.other_annotations import Annotate, check_there, tables_digest
from laughstore.store import open_shards

from ..losses import LOSSES
from ..model import ScoreModel
from ..streaming.selection import Selection
from .checkpoint import Checkpoint, checkpoint_path, load_checkpoint
from .folds import TRAIN_SPLIT, with_fold
from .run import Run

_ANNOTATIONS = "annotations_sha256"


def index_for(
    run: Run, shards: Path | str | None, annotations: Path | None, annotate: Annotate
) -> Index:
    """Return the index of what a run shall score, with annotations, divided as its fold is.

    Args:
        run: that scores.
        shards: folder or URL; the run's own if None.
        annotations: to make labels from instead of those that it was trained with.
        annotate: reads them.

    Raises:
        NotFound: nothing is there.
        ConfigError: the run's annotations have changed.
        SpecMismatch: the shards hold other features than the run's.
    """
    config = run.config
    index = open_shards(config.shards if shards is None else shards)
    if index.spec_id != run.spec.spec_id:
        raise SpecMismatch(
            f"{index.where} holds other features than {run.path} was trained on"
            f" ({'; '.join(index.spec.differences(run.spec))}); give shards of the same spec"
        )
    if annotations is not None:
        index = annotate(index, annotations)
    elif config.annotations is not None:
        index = _as_trained(index, run, config.annotations, annotate)
    return index if run.fold is None else with_fold(index, run.fold)


def _as_trained(index: Index, run: Run, path: Path, annotate: Annotate) -> Index:
    """The index with the annotations that the run was trained with, if they are still the same."""
    check_there(path)
    found = annotate(index, path)
    if index.index_id == run.index_id and tables_digest(found) != run.about.get(_ANNOTATIONS):
        raise ConfigError(
            f"{path} has changed since {run.path} was trained with it; restore it, or say that what"
            f" is there now is meant: --annotations {path}"
        )
    return found


def groups_trained_on(index: Index, run: Run, scored: Selection) -> tuple[str, ...]:
    """Return groups of the scored streams that the run was trained on, as far as is known."""
    if run.fold is not None:
        known = run.fold.train
    elif index.index_id == run.index_id:
        takes = run.config.filter.takes
        items = (item for item in index.recordings if item.split == TRAIN_SPLIT and takes(item.id))
        known = {item.group for item in items}
    else:
        return ()
    groups = {index.recording(stream.recording_id).group for stream in scored.streams}
    return tuple(sorted(groups & known))


def other_annotations(index: Index, run: Run, annotations: Path | None) -> str | None:
    """Return a line when labels may be others than the run's, or None.

    Args:
        index: with the annotations that labels are made from.
        run: that is scored with.
        annotations: where those are from; None: from the store.
    """
    if annotations is not None and tables_digest(index) != run.about.get(_ANNOTATIONS):
        trained_on = run.config.annotations or "the store's own"
        return f"labels are made from {annotations} as it is; the run was trained on {trained_on}"
    if index.index_id == run.index_id:
        return None
    trained_on = run.about.get("generation")
    other = "another store"
    if trained_on != index.generation:
        other = "another one" if trained_on is None else f"generation {trained_on}"
    return f"labels are those of generation {index.generation}; the run was trained on {other}"


@dataclass(frozen=True, eq=False)
class Trained:
    """A checkpoint, ready to score with."""

    path: Path
    model: ScoreModel
    """On the CPU."""
    threshold: float | None
    """Of classes: the score with the best F1 in the validation of this checkpoint as training saw
    it; None if there was none. Evaluations use it only where that validation cannot be scored
    again (see `train.evaluation.operating`)."""

    @property
    def sha256(self) -> str:
        """Of the model's tensors, as hex digits: equal for equal scores."""
        tensors = {name: value.cpu() for name, value in self.model.state_dict().items()}
        return hashlib.sha256(safetensors.torch.save(tensors)).hexdigest()


def load_trained(run: Run, checkpoint: str) -> Trained:
    """Return a checkpoint of a run.

    Args:
        run: that it is of.
        checkpoint: `best`, `last`, or the path of one.

    Raises:
        NotFound: there is none.
        ConfigError: it is another run's.
        CorruptData: a file was altered or cut, or does not fit.
    """
    path = find_checkpoint(run, checkpoint)
    loaded = load_checkpoint(path)
    return Trained(path, _model(path, loaded, run), loaded.state.get("threshold"))


def find_checkpoint(run: Run, checkpoint: str) -> Path:
    """Return the path of a checkpoint of a run: of `best`, of `last`, or that which is given.

    Raises:
        NotFound: the run has none.
        CorruptData: the file that names the best was altered.
    """
    if checkpoint == "best" or checkpoint == "last":
        return checkpoint_path(run.checkpoints, checkpoint)
    return Path(checkpoint)


def _model(path: Path, checkpoint: Checkpoint, run: Run) -> ScoreModel:
    saved_by, ours = checkpoint.state.get("run", {}), run.identity
    if saved_by != ours:
        differ = [name for name in ours if saved_by.get(name) != ours[name]]
        raise ConfigError(
            f"{path} is a checkpoint of another run than {run.path} (other {', '.join(differ)});"
            " evaluate it with the folder of the run that saved it"
        )
    described = checkpoint.state.get("model")
    if described is None:  # runs of earlier releases say in their config alone what was trained
        scores = LOSSES[run.config.loss.loss].scores
        model = ScoreModel(run.config.head, run.spec.dim, scores=scores)
    else:
        model = ScoreModel.described(described, dim=run.spec.dim, where=str(path))
    try:
        # Runs from before there was balance have none.
        model.load_state_dict({"log_balance": torch.zeros(()), **checkpoint.model})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CorruptData(f"{path} is no checkpoint of {run.path}'s model ({reason})") from error
    return model.eval()
