"""store.json: names every file of a generation with its size and SHA-256. It is the commit.

It names the records of units, and each of those names the files of its recording: a tree of hashes
of two levels, so that a store of ten thousand recordings opens by reading two small files. It is
written after all the files it names, so a store is either the old generation or the new one, never
a mixture. Readers open only what it names.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from . import layout
from .errors import CorruptData, IncompleteStore, NotFound
from .files import sha256_file, write_atomic
from .folders import Folder, LocalFolder
from .naming import is_store_path
from .sealed import read_small, seal, unseal
from .spec import FeatureSpec
from .values import integer, listed, mapping, text

STORE_FORMAT = "laughstore"
STORE_VERSION = 1
_HEX_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
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
        return cls.of_bytes(path, data)

    @classmethod
    def of_bytes(cls, path: str, data: bytes) -> Self:
        """Return the record of a file with this content."""
        return cls(path, len(data), hashlib.sha256(data).hexdigest())

    @classmethod
    def of(cls, store: Path, path: str) -> Self:
        """Return the record of a file that is there."""
        return cls(path, (store / path).stat().st_size, sha256_file(store / path))

    @classmethod
    def from_json(cls, data: object, *, where: str) -> Self:
        """Return the record that `dataclasses.asdict` made.

        Raises:
            CorruptData: it is none, or names what no store may name.
        """
        item = mapping(data, where=where)
        paths = [item.get("path"), item.get("also")]
        if not is_store_path(paths[0]) or not (paths[1] is None or is_store_path(paths[1])):
            shown = str(paths)[:200]
            raise CorruptData(f"{where}: names {shown}, which no store may; do not trust it")
        digest = text(item, "sha256", where=where)
        if len(digest) != 64 or not _HEX_DIGITS.issuperset(digest):
            raise CorruptData(f"{where}: {paths[0]}: {digest[:80]!r} is no SHA-256; restore it")
        return cls(
            text(item, "path", where=where),
            integer(item, "num_bytes", where=where),
            digest,
            also=None if paths[1] is None else text(item, "also", where=where),
        )


def file_records(items: object, *, where: str) -> tuple[FileRecord, ...]:
    """Return a list of file records from JSON. Raises CorruptData as `FileRecord.from_json`."""
    return tuple(
        FileRecord.from_json(item, where=where) for item in listed(items, "files", where=where)
    )


@dataclass(frozen=True)
class Manifest:
    """A generation of a store."""

    generation: int
    spec: FeatureSpec
    index: str
    """Path of the generation's index."""
    index_id: str
    """Seal of that index: binds the two together."""
    num_plans: int
    """Plans that were carried out: 1 and one for each addition."""
    quarantined: tuple[dict[str, str], ...]
    """Recordings left out: name, split, reason."""
    files_json: Sequence[Any]  # Any: JSON values, read when they are asked for
    """Of the files named here: index, plans, unit records, annotations, Zarr groups."""
    where: str = "store.json"

    @cached_property
    def files(self) -> tuple[FileRecord, ...]:
        """Files that the manifest names itself, by path. Raises CorruptData for hostile paths."""
        return file_records(self.files_json, where=self.where)

    def all_files(self, folder: Folder) -> Iterator[FileRecord]:
        """Yield every file of the generation: those named here and those that units name.

        Raises:
            CorruptData: a unit's record was altered or names what no store may name.
            NotFound: a unit's record is missing.
        """
        from .unit import UnitRecord

        for item in self.files:
            yield item
            if item.path.startswith(f"{layout.UNITS}/"):
                where = folder.describe(item.path)
                data = read_small(folder, item.path)
                if hashlib.sha256(data).hexdigest() != item.sha256:
                    raise CorruptData(f"{where}: not what {self.where} says; restore it")
                yield from UnitRecord.from_bytes(data, where=where).files

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
                "index_id": self.index_id,
                "num_plans": self.num_plans,
                "files": [asdict(item) for item in self.files],
                "quarantined": list(self.quarantined),
            }
        )


def read_manifest(store: Path | Folder, generation: int | None = None) -> Manifest:
    """Return a generation of a store.

    Args:
        store: folder of the store.
        generation: its number; the newest by default.

    Raises:
        NotFound: the folder does not exist, or has no such generation.
        IncompleteStore: it holds no finished store.
        CorruptData: store.json was altered, or a newer version of laughstore wrote it.
    """
    folder = LocalFolder(store) if isinstance(store, Path) else store
    newest = _read(folder, layout.STORE_JSON, None)
    if generation is None or generation == newest.generation:
        return newest
    # One behind the newest is what a commit has left that was killed before it counted.
    if not 0 < generation < newest.generation:
        raise _not_there(folder, generation)
    return _read(folder, layout.generation(generation), generation)


def _read(folder: Folder, path: str, generation: int | None) -> Manifest:
    try:
        data = read_small(folder, path)
    except NotFound as error:
        raise _not_there(folder, generation) from error
    found = parse_manifest(data, where=folder.describe(path))
    if generation not in (None, found.generation):
        raise CorruptData(
            f"{folder.describe(path)}: is generation {found.generation}; restore the file"
        )
    return found


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Return the manifest in these bytes. Raises CorruptData as `read_manifest`."""
    content, _ = unseal(data, where=where)
    if content.get("format") != STORE_FORMAT or content.get("version") != STORE_VERSION:
        raise CorruptData(
            f"{where}: {content.get('format')} version {content.get('version')} is not readable;"
            f" this release reads {STORE_FORMAT} version {STORE_VERSION}"
        )
    generation = integer(content, "generation", where=where, low=1, high=999_999)
    index = text(content, "index", where=where)
    if index != layout.index(generation):
        raise CorruptData(f"{where}: names the index {index[:80]!r}; do not trust this file")
    return Manifest(
        generation=generation,
        spec=FeatureSpec.from_json(mapping(content.get("spec"), where=where), where=where),
        index=index,
        index_id=text(content, "index_id", where=where),
        num_plans=integer(content, "num_plans", where=where, low=1, high=999_999),
        quarantined=tuple(
            _quarantined(item, where=where)
            for item in listed(content.get("quarantined"), "quarantined", where=where)
        ),
        files_json=listed(content.get("files"), "files", where=where),
        where=where,
    )


def _quarantined(item: object, *, where: str) -> dict[str, str]:
    entry: Mapping[str, object] = mapping(item, where=where)
    return {key: text(entry, key, where=where) for key in ("name", "split", "reason")}


def _not_there(folder: Folder, generation: int | None) -> NotFound | IncompleteStore:
    where = folder.describe()
    if generation is not None and folder.exists(layout.STORE_JSON):
        return NotFound(
            f"{where} has no generation {generation}; `laughstore inspect` tells which are kept"
        )
    if folder.local is not None and not folder.local.is_dir():
        what = "is a file" if folder.local.exists() else "does not exist"
        return NotFound(f"{where} {what}; give the folder of a store")
    if folder.exists(layout.FIRST_PLAN):
        command = "`laughstore build` or `laughstore export`"
        if folder.local is None:
            command = "`laughstore push`"
        return IncompleteStore(
            f"{where} has not been finished; run the same {command} again to go on"
        )
    return IncompleteStore(
        f"{where} holds no {layout.STORE_JSON}; give the folder of a store that `laughstore"
        " build` finished"
    )
