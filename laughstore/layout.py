"""Where everything of a store stands under its folder. Paths are relative, with `/`."""

from pathlib import PurePosixPath

from .naming import shard_name

STORE_JSON = "store.json"
"""The newest generation's manifest; written last: a store without it is not finished."""
GENERATIONS = "generations"
PLANS = "plans"
UNITS = "units"
ANNOTATIONS = "annotations"
LOCK = ".lock"
"""Holds the locks of writers and no bytes; no part of the store."""
QUARANTINE_JSON = "quarantine.json"
SHARDS = "shards"
INDEX_NAME = "index.json"
"""In SHARDS: a copy of the newest generation's index."""
FEATURES = "features.zarr"
CODES = "codes.zarr"
STATS = "stats"
CURRENT_INDEX = f"{SHARDS}/{INDEX_NAME}"


def generation(number: int) -> str:
    """Return the path of a generation's immutable manifest."""
    return f"{GENERATIONS}/{number:06d}.json"


def plan(number: int) -> str:
    """Return the path of a build plan: 1 is that of the store, later ones are additions."""
    return f"{PLANS}/{number:06d}.json"


FIRST_PLAN = plan(1)
"""Where it stands, a store was begun."""


def unit(recording_id: str) -> str:
    """Return the path of a finished unit's record."""
    return f"{UNITS}/{recording_id}.json"


def annotations(annotations_id: str, split: str, recording_id: str) -> str:
    """Return the path of a recording's annotations."""
    return f"{ANNOTATIONS}/{annotations_id}/{split}/{recording_id}.json"


def stats(recording_id: str) -> str:
    """Return the path of the channel statistics of a recording's streams."""
    return f"{STATS}/{recording_id}.json"


def shard(split: str, number: int) -> str:
    """Return the path of a shard by its tar name."""
    return f"{SHARDS}/{shard_name(split, number)}"


def array(root: str, split: str, recording_id: str, assignment: str) -> str:
    """Return the path of a stream's Zarr array under FEATURES or CODES."""
    return f"{root}/{split}/{recording_id}/{assignment}"


def chunk(array_path: str, number: int) -> str:
    """Return the path of chunk `number` along frames of a two-dimensional Zarr array."""
    return f"{array_path}/c/{number}/0"


def index(number: int) -> str:
    """Return the path of a generation's immutable index."""
    return f"{SHARDS}/index-{number:06d}.json"


def columns(number: int) -> str:
    """Return the path of the arrays of a generation's index."""
    return f"{SHARDS}/index-{number:06d}.columns"


def zarr_json(node_path: str) -> str:
    """Return the path of a Zarr node's metadata."""
    return str(PurePosixPath(node_path) / "zarr.json")
