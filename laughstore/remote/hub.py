"""Folders of repositories on the Hugging Face hub: hf://datasets/OWNER/NAME[@REVISION]/FOLDER.

The hub's own client reads the address, finds the login and the commit that a revision means. From
then on files are read from that commit by plain range requests: a store that is open does not
change under its reader when somebody pushes.
"""

import re
from dataclasses import dataclass, field

from ..errors import ConfigError, LaughstoreError, NotFound, Unreachable
from .errors import Failure

_ADDRESS = re.compile(
    r"((?:datasets|spaces)/)?(?!(?:datasets|spaces|models)/)[\w.-]+/[\w.-]+"  # repository
    r"(@(refs/(?:convert|pr)/\w+|[^/@]+))?"  # revision
    r"(/[^@]+)?"  # folder
)


@dataclass(frozen=True)
class HubFolder:
    """Where files of a folder are read from, at one commit."""

    repo_type: str
    repo_id: str
    commit: str
    path: str
    """In the repository."""
    url: str
    headers: dict[str, str] = field(repr=False)
    """With the login, if there is one; clients drop it when the hub redirects elsewhere."""


def check_address(address: str) -> None:
    """Refuse what is no folder of a repository.

    Raises:
        ConfigError: `address` (behind hf://) has another form.
    """
    if not _ADDRESS.fullmatch(address):
        raise ConfigError(
            "an hf:// URL is hf://datasets/OWNER/NAME[@REVISION]/FOLDER, or hf://OWNER/NAME/FOLDER"
            " for a model"
        )


def is_repository(address: str) -> bool:
    """Tell the root of a repository from a folder in it."""
    match = _ADDRESS.fullmatch(address.rstrip("/"))
    return match is not None and match[4] is None


def find_commit(address: str) -> HubFolder:
    """Ask the hub for the commit that an address means now.

    Raises:
        NotFound: no such repository or revision, or a private one without a login.
        Unreachable: the hub's client is told to stay offline.
        Failure: the hub does not answer; worth another attempt.
    """
    from huggingface_hub import HfApi, HfFileSystem, constants, get_token

    shown = f"hf://{address}"
    if constants.HF_HUB_OFFLINE:
        raise Unreachable(
            f"{shown}: HF_HUB_OFFLINE is set; unset it, or download the store and open its folder"
        )
    try:
        files = HfFileSystem(endpoint=constants.ENDPOINT, skip_instance_cache=True)
        where = files.resolve_path(address)
        api = HfApi(endpoint=constants.ENDPOINT)
        about = api.repo_info(
            where.repo_id, repo_type=where.repo_type, revision=where.revision, timeout=10.0
        )
        repository = constants.REPO_TYPES_URL_PREFIXES.get(where.repo_type, "") + where.repo_id
        url = f"{constants.ENDPOINT}/{repository}/resolve/{about.sha}/{where.path_in_repo}"
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
    except Exception as error:
        # Which classes come depends on the client's version (requests or httpx).
        failure = failure_of(error, shown)
    else:
        return HubFolder(
            repo_type=where.repo_type,
            repo_id=where.repo_id,
            commit=str(about.sha),
            path=where.path_in_repo,
            url=url.rstrip("/"),
            headers=headers,
        )
    raise failure


def list_sizes(where: HubFolder, folder: str) -> dict[str, int]:
    """Return the bytes of each file directly in a folder below `where`, 1,000 in a request.

    Raises:
        NotFound, Unreachable, Failure: as `find_commit`.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.hf_api import RepoFile

    path = "/".join(part for part in (where.path, folder) if part)
    try:
        found = list(
            HfApi(endpoint=constants.ENDPOINT).list_repo_tree(
                where.repo_id, path, repo_type=where.repo_type, revision=where.commit
            )
        )
    except Exception as error:
        failure = failure_of(error, f"hf://{where.repo_id}/{path}")
    else:
        inside = len(where.path) + 1 if where.path else 0
        return {item.path[inside:]: item.size for item in found if isinstance(item, RepoFile)}
    raise failure


def failure_of(error: Exception, shown: str) -> Failure | LaughstoreError:
    """Return an error of the hub's client as one that can be told."""
    name = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if name == "GatedRepoError" or status == 403:
        return Failure("denied", "the repository is gated or private: log in, or set HF_TOKEN")
    if isinstance(error, FileNotFoundError | ValueError) or name.endswith("NotFoundError"):
        return NotFound(
            f"{shown}: the hub knows no such repository or revision; if it is private, log in or"
            " set HF_TOKEN"
        )
    if status == 401:
        return Failure("denied", "the hub does not accept the login: answer 401")
    return Failure("transient", f"the hub does not answer ({status or name})")
