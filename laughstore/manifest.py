"""store.json: names every file of a generation with its size and SHA-256. It is the commit.

Readers of a store open only what it names. It is written after all the files it names, so a store
is either the old generation or the new one, never a mixture.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from . import layout
from .errors import CorruptData, IncompleteStore, NotFound
from .files import sha256_file, write_atomic
from .sealed import seal, unseal
from .spec import FeatureSpec

STORE_FORMAT = "laughstore"
STORE_VERSION = 1


@dataclass(frozen=True)
class FileRecord:
    """One file of a store."""

    path: str
    """Relative to the store, with `/`."""
    num_bytes: int
    sha256: str
    also: str | None = None
    """Second name of the same bytes: a hard link, or a copy where links cannot be made."""

    @classmethod
    def write(cls, store: Path, path: str, data: bytes) -> Self:
        """Write a small file durably and return its record."""
        write_atomic(store / path, data)
        return cls(path, len(data), hashlib.sha256(data).hexdigest())

    @classmethod
    def of(cls, store: Path, path: str) -> Self:
        """Return the record of a file that is there."""
        return cls(path, (store / path).stat().st_size, sha256_file(store / path))


@dataclass(frozen=True)
class Manifest:
    """A generation of a store."""

    generation: int
    spec: FeatureSpec
    index: str
    """Path of the generation's index."""
    files: tuple[FileRecord, ...]
    """Sorted by path."""
    quarantined: tuple[dict[str, str], ...]
    """Recordings left out: name, split, reason."""

    def to_bytes(self) -> bytes:
        """Return the sealed JSON."""
        return seal(
            {
                "format": STORE_FORMAT,
                "version": STORE_VERSION,
                "generation": self.generation,
                "spec": self.spec.to_json(),
                "spec_id": self.spec.spec_id,
                "index": self.index,
                "files": [asdict(item) for item in self.files],
                "quarantined": list(self.quarantined),
            }
        )


def read_manifest(store: Path) -> Manifest:
    """Return the newest generation of a store.

    Raises:
        NotFound: the folder does not exist.
        IncompleteStore: it holds no finished store.
        CorruptData: store.json was altered, or a newer version of laughstore wrote it.
    """
    path = store / layout.STORE_JSON
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not store.is_dir():
            what = "is a file" if store.exists() else "does not exist"
            raise NotFound(f"{store} {what}; give the folder of a store") from error
        if (store / layout.PLAN_JSON).exists():
            raise IncompleteStore(
                f"{store} has not been finished; run the same `laughstore build` again to go on"
            ) from error
        raise IncompleteStore(
            f"{store} holds no {layout.STORE_JSON}; give the folder of a store that `laughstore"
            " build` finished"
        ) from error
    content, _ = unseal(data, where=str(path))
    if content.get("format") != STORE_FORMAT or content.get("version") != STORE_VERSION:
        raise CorruptData(
            f"{path}: {content.get('format')} version {content.get('version')} is not readable;"
            f" this release reads {STORE_FORMAT} version {STORE_VERSION}"
        )
    return _parse(content, where=str(path))


def _parse(content: Mapping[str, Any], *, where: str) -> Manifest:  # Any: JSON values
    try:
        return Manifest(
            generation=content["generation"],
            spec=FeatureSpec.from_json(content["spec"], where=where),
            index=content["index"],
            files=tuple(FileRecord(**item) for item in content["files"]),
            quarantined=tuple(content["quarantined"]),
        )
    except (KeyError, TypeError) as error:
        raise CorruptData(f"{where}: field missing or of another kind ({error})") from error
