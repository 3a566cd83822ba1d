"""Verify a store: is every byte of it what was written, and if not, which are not?

First the metadata is read (`store_check`, `index_check`): what the store says it has. Then every
file is read once (`hashing_pass`) and held against that. Nothing is written and nothing is believed
before it is checked: what cannot be read is told, and the rest goes on.
"""

import os
import time
from pathlib import Path, PurePosixPath

from .. import layout
from ..errors import ConfigError
from ..files import TEMPORARY_MARK
from ..folders import Folder, open_folder
from ..manifest import read_manifest
from ..progress import NoProgress, Progress
from .claims import Survey
from .file_check import Listing, list_folder
from .hashing_pass import FileVerification
from .index_check import check_arrays
from .report import VerifyReport, first_some
from .store_check import survey_shards, survey_store

_REMOTE_JOBS = 8
"""A remote side is waited for, not computed with."""


def verify(
    path: Folder | Path | str,
    *,
    quick: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Compare everything in a store with what was written, all kept generations of it.

    Args:
        path: folder or URL of a store, or of a shards folder, which is then verified alone.
        quick: look at sizes, seals, indexes and the ends of shards; read no features.
        jobs: files read at the same time; by default one for each CPU, 8 for a remote store.
        progress: told how many bytes have been verified.

    Returns:
        The report; `faults` is empty when everything is as it was written.

    Raises:
        ConfigError: jobs is less than 1.
        NotFound: there is no such folder.
        IncompleteStore: it holds neither a finished store nor shards.
        CorruptData: a newer version of laughstore wrote it.
        Unreachable: a remote store does not answer.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs is {jobs}; at least one file is read at a time")
    began = time.monotonic()
    folder = open_folder(path) if isinstance(path, Path | str) else path
    is_store = _is_store(folder)
    listing = None if folder.local is None else list_folder(folder.local)
    survey, index = (survey_store if is_store else survey_shards)(folder, listing)
    check = FileVerification(folder, survey, listing, quick, progress or NoProgress())
    check.look_at_files(jobs or _default_jobs(folder))
    check.judge()
    if is_store and index is not None and not quick:
        check_arrays(survey, folder, index, check.sound)
    check.suspicions()
    _unnamed(survey, folder, listing, is_store)
    views = survey.views.values()
    return VerifyReport(
        where=folder.describe(),
        shards_alone=not is_store,
        quick=quick,
        generations=tuple(survey.generations),
        num_recordings=len({view.shard.stream.recording_id for view in views}),
        num_shards=len(survey.views),
        num_blocks=sum(view.shard.num_blocks for view in views),
        num_files=check.num_files,
        num_bytes=check.num_bytes,
        seconds=time.monotonic() - began,
        faults=tuple(sorted(survey.faults, key=lambda item: (item.path, item.start or 0))),
        notes=tuple(survey.notes),
        bad_blocks=tuple(dict.fromkeys(check.bad_blocks)),
    )


def _is_store(folder: Folder) -> bool:
    """Whether this is a store; False: a shards folder. Raises as `verify` when it is neither."""
    if _is_named(folder, layout.STORE_JSON) or _is_named(folder, layout.CURRENT_INDEX):
        return True
    if _is_named(folder, layout.INDEX_NAME):
        return False
    local = folder.local
    if local is not None and any(local.glob("index-[0-9][0-9][0-9][0-9][0-9][0-9].json")):
        return False
    around = folder.parent()
    if around is not None and around.exists(layout.FIRST_PLAN):
        read_manifest(around)  # says that the build has not finished
    read_manifest(folder)
    return True


def _is_named(folder: Folder, path: str) -> bool:
    """Whether something has this name, be it a link or a folder."""
    if folder.local is not None:
        return os.path.lexists(folder.local / path)
    return folder.exists(path)


def _unnamed(survey: Survey, folder: Folder, listing: Listing | None, is_store: bool) -> None:
    """Tell what nothing names. Tars are faults: stock readers read every tar of the folder."""
    if listing is None:
        return
    told = {fault.path for fault in survey.faults}
    for path, reason in listing.unreadable:
        survey.fault(path or ".", f"the folder cannot be listed ({reason})", "give access to it")
    for path in listing.links:
        if path not in told:
            what = "is a symbolic link, which could lead anywhere"
            survey.fault(path, what, "a store holds its files itself: copy what it leads to here")
    named = set(survey.names())
    prefix = f"{layout.SHARDS}/" if is_store else ""
    leftovers: list[str] = []
    strange: list[str] = []
    for path in listing.files:
        if path in named or path in told:
            continue
        if TEMPORARY_MARK in PurePosixPath(path).name:
            leftovers.append(path)
        elif path.startswith(prefix) and path.endswith(".tar") and path not in survey.in_progress:
            what = "nothing names it, and stock readers read every tar of this folder"
            survey.fault(path, what, "move it away")
        elif path not in survey.in_progress:
            strange.append(path)
    if leftovers:
        survey.notes.append(
            f"{len(leftovers)} files of writers that were stopped ({first_some(leftovers)});"
            " `laughstore gc` removes them when no writer runs"
        )
    if strange:
        survey.notes.append(
            f"{len(strange)} files that nothing names, not verified: {first_some(strange)}"
        )


def _default_jobs(folder: Folder) -> int:
    if folder.local is None:
        return _REMOTE_JOBS
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
