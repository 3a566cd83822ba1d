"""The saved place of a stream: a JSON object that names what the stream is made of."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from laughstore.errors import ConfigError
from laughstore.labels import LabelSpec
from laughstore.sealed import canonical_json

from ..plan import Mix
from .selection import FrameFilter, Selection
from .sequence_shape import SequenceShape

STATE_FORMAT: Final = "laughstore-stream"
STATE_VERSION: Final = 2

type Fields = Mapping[str, Any]  # Any: JSON values
"""All that decides which rows come when, with which targets."""


def stream_fields(
    selection: Selection,
    *,
    label: LabelSpec | None,
    frames: FrameFilter,
    balance: float | None,
    seed: int,
    global_batch: int,
    lanes: int,
    window_blocks: int,
    mix: Mix,
    skip: Sequence[str],
    sequence: SequenceShape | None,
) -> dict[str, Any]:  # Any: JSON values
    """Return the fields of a stream's identity, of its rows and what `FrameStream` was given.

    `skip` are the keys of the blocks that are left out as corrupt.
    """
    fields = {
        "features": selection.features_digest,
        "targets": selection.targets_digest,
        "label": None if label is None else label.identity(),
        "frames": frames.identity(),
        "balance": None if balance is None else float(balance),
        "seed": seed,
        "global_batch": global_batch,
        "lanes": lanes,
        "window_blocks": window_blocks,
        "mix": mix,
        "skip": skip,
    }
    # Streams of rows keep the identity that they had before there were sequences.
    return fields if sequence is None else fields | {"sequence": [sequence.rows, sequence.context]}


def identity_of(fields: Fields) -> str:
    """Return the SHA-256 of the fields."""
    return hashlib.sha256(canonical_json(fields)).hexdigest()


def make_state(
    epoch: int, step: int, fields: Fields, identity: str
) -> dict[str, Any]:  # Any: JSON values
    """Return the state of a stream whose next batch is `step` of `epoch`."""
    return {
        "format": STATE_FORMAT,
        "version": STATE_VERSION,
        "epoch": epoch,
        "step": step,
        "identity": identity,
        "fields": dict(fields),
    }


def read_state(state: Mapping[str, Any], fields: Fields) -> tuple[int, int]:
    """Return (epoch, step) of a saved state.

    Args:
        state: what `make_state` returned.
        fields: of the stream that is to go on.

    Raises:
        ConfigError: the state is of a stream with another identity; the message names the fields
            that differ. Or it is no state.
    """
    if not isinstance(state, Mapping):
        raise ConfigError(f"not a state, but {state!r:.80}; give what state_dict() returned")
    if (state.get("format"), state.get("version")) != (STATE_FORMAT, STATE_VERSION):
        raise ConfigError(
            f"not a state of this release's FrameStream (format {state.get('format')!r},"
            f" version {state.get('version')!r}); give what state_dict() returned"
        )
    theirs, place = state.get("fields"), (state.get("epoch"), state.get("step"))
    if not isinstance(theirs, Mapping) or any(type(number) is not int for number in place):
        raise ConfigError(
            "the state was altered: it lacks fields, epoch or step; give what state_dict() returned"
        )
    if state.get("identity") != identity_of(fields):
        names = dict.fromkeys((*fields, *theirs))
        differ = [name for name in names if theirs.get(name) != fields.get(name)]
        raise ConfigError(
            "the saved stream cannot go on here, because it yields other rows:"
            f" {', '.join(_difference(name, theirs, fields) for name in differ)};"
            " use the settings and data it was saved with"
        )
    return state["epoch"], state["step"]


def _difference(name: str, theirs: Fields, mine: Fields) -> str:
    return f"{name} was {theirs.get(name)!r} and is {mine.get(name)!r}"
