"""What dry runs tell of the disk: whether the store has room there."""

from pathlib import Path
from typing import TYPE_CHECKING

from .text import human_bytes

if TYPE_CHECKING:
    from extract.room import Room


def room_fields(room: "Room") -> dict[str, int | bool]:
    """Return the fields of the JSON report."""
    return {
        "bytes": room.num_bytes,
        "missing_bytes": room.missing_bytes,
        "free_disk_bytes": room.free_bytes,
        "enough": room.is_enough,
    }


def room_text(room: "Room", store: Path) -> str:
    """Return `1.2 GB free at STORE: enough`, with what is there of the store, if anything."""
    missing = ""
    if room.missing_bytes < room.num_bytes:
        missing = f" for the {human_bytes(room.missing_bytes)} still to be written"
    twice = "" if room.has_links else " (shards count twice: files cannot have two names there)"
    enough = "enough" if room.is_enough else "NOT ENOUGH"
    return f"{human_bytes(room.free_bytes)} free at {store}: {enough}{missing}{twice}"
