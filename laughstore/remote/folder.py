"""Folders that are read over the network: object stores and web servers, through obstore.

Nothing is asked of the remote side before the first read; `client` makes the requests.

Where credentials come from (never from the arguments of a command):
    s3://   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION or
            AWS_DEFAULT_REGION; a web identity, container or instance role when there are no keys;
            AWS_SKIP_SIGNATURE=true for public buckets; AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL for
            other servers than Amazon's, AWS_ALLOW_HTTP=true if such a one has no TLS, AWS_CA_BUNDLE
            for its certificates. Profiles: `aws configure export-credentials --format env`.
    gs://   GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY, the login of gcloud, the
            service account of the machine; GOOGLE_SKIP_SIGNATURE=true for public buckets.
    hf://   HF_TOKEN or the login of the hub's client; HF_ENDPOINT.
    https:// user and password, or a query such as a shared access signature, in the URL itself.
"""

import base64
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from ..errors import ConfigError, CorruptData, NotFound
from ..naming import is_store_path
from .client import Patience, RemoteClient

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
_UNSAFE_IN_URL = re.compile(r"[\x00-\x20\x7f\\]")


class RemoteFolder:
    """A folder of an object store or web server. Made by `open_url`."""

    def __init__(self, client: RemoteClient, base: str = "") -> None:
        self._client = client
        self._base = base

    @property
    def local(self) -> None:
        """None: it is not on this machine."""
        return None

    @property
    def client(self) -> RemoteClient:
        """What makes the requests below the URL that was opened."""
        return self._client

    def child(self, name: str) -> "RemoteFolder":
        """Return a folder in this one."""
        return RemoteFolder(self._client, self._key(name))

    def parent(self) -> "RemoteFolder | None":
        """Return the folder around this one; None at the root of a bucket, server or repository."""
        if self._base:
            return RemoteFolder(self._client, self._base.rpartition("/")[0])
        around = _url_around(self._client.url)
        return None if around is None else open_url(around, self._client.patience)

    def describe(self, path: str = "") -> str:
        """Return the URL of a file, for messages; without credentials."""
        return "/".join(part for part in (self._client.shown, self._base, path) if part)

    def size(self, path: str) -> int:
        """Return the bytes of a file; asked for once."""
        return self._client.size(self._key(path))

    def sizes(self, paths: Sequence[str]) -> list[int]:
        """Return the bytes of many files: by listing their folders, or side by side."""
        return self._client.sizes_of([self._key(path) for path in paths])

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        return self._client.read(self._key(path))

    def read_range(self, path: str, start: int, num_bytes: int) -> bytes:
        """Return exactly these bytes of a file."""
        assert start >= 0, start
        assert num_bytes >= 0, num_bytes
        key = self._key(path)
        known = self._client.sizes.get(key)
        if num_bytes == 0 or (known is not None and start + num_bytes > known):
            size = self.size(path)
            if start + num_bytes > size:
                raise CorruptData(
                    f"{self.describe(path)}: {max(0, size - start)} of {num_bytes} bytes at"
                    f" {start}; the file was cut: restore it"
                )
            return b""
        return self._client.read(key, (start, start + num_bytes))

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        try:
            self.size(path)
        except NotFound:
            return False
        return True

    def list_names(self, path: str) -> list[str] | None:
        """Return the names of the files directly in a folder; None where it cannot be listed."""
        return self._client.list_names(self._key(path))

    def _key(self, path: str) -> str:
        if not is_store_path(path):
            raise CorruptData(
                f"{self.describe()}: {str(path)[:200]!r} must not be opened; do not trust the file"
                " that names it"
            )
        return f"{self._base}/{path}" if self._base else path

    def __repr__(self) -> str:
        return f"RemoteFolder({self.describe()!r})"

    def __reduce__(self) -> tuple[object, ...]:
        """Worker processes that are spawned open the URL again."""
        return _reopen, (self._client.url, self._client.patience, self._base)


def open_url(url: str, patience: Patience | None = None) -> RemoteFolder:
    """Return the folder that a URL means; nothing is asked of the remote side yet.

    Args:
        url: `s3://BUCKET/FOLDER`, `gs://BUCKET/FOLDER`, `hf://datasets/OWNER/NAME[@REVISION]/FOLDER`
            (or a model: `hf://OWNER/NAME/...`), `https://HOST/FOLDER`; `http://` to this machine.
        patience: timeouts and repetitions.

    Raises:
        ConfigError: a URL of another kind, or one that is not well formed.
    """
    patience = patience or Patience()
    if not isinstance(url, str) or _UNSAFE_IN_URL.search(url):
        raise ConfigError("a URL must not hold spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (raises when it is no number)
    except ValueError:
        raise ConfigError("a URL is not well formed: check its host and port") from None
    if parts.scheme in ("s3", "gs"):
        return _open_bucket(parts, patience)
    if parts.scheme == "hf":
        return _open_hub(url, parts, patience)
    if parts.scheme in ("https", "http"):
        return _open_web(parts, patience)
    raise ConfigError(
        f"{parts.scheme or 'this'}: is no kind of URL that stores are read from; those are s3://,"
        " gs://, hf://, https:// (http:// to this machine only); a folder is given by its path"
    )


def _reopen(url: str, patience: Patience, base: str) -> RemoteFolder:
    opened = open_url(url, patience)
    return opened.child(base) if base else opened


def _open_bucket(parts: SplitResult, patience: Patience) -> RemoteFolder:
    bucket, folder = parts.netloc, _folder_of(parts)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket) or parts.query or parts.fragment:
        raise ConfigError(
            f"a {parts.scheme}:// URL is {parts.scheme}://BUCKET/FOLDER and nothing else;"
            " credentials come from the environment"
        )

    def connect(patience: Patience) -> "ObjectStore":
        from obstore.store import GCSStore, S3Store

        if parts.scheme == "gs":
            allow_http = _http_allowed("GOOGLE_BASE_URL")
            return GCSStore(
                bucket,
                prefix=folder or None,
                client_options=patience.client_options(allow_http=allow_http),
                retry_config=patience.retry_config(),
            )
        options = patience.client_options(
            allow_http=_http_allowed("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
        )
        certificates = os.environ.get("AWS_CA_BUNDLE")
        if certificates and not options.get("allow_http"):
            try:
                options["root_certificate"] = Path(certificates).read_bytes()
            except OSError:
                raise ConfigError("AWS_CA_BUNDLE names a file that cannot be read") from None
        return S3Store(
            bucket,
            prefix=folder or None,
            client_options=options,
            retry_config=patience.retry_config(),
        )

    shown = f"{parts.scheme}://{bucket}" + (f"/{folder}" if folder else "")
    return RemoteFolder(RemoteClient(shown, shown, connect, patience, list_folder=_list_objects))


def _open_web(parts: SplitResult, patience: Patience) -> RemoteFolder:
    host = parts.hostname or ""
    if parts.scheme == "http" and not _LOOPBACK.fullmatch(host):
        raise ConfigError("http:// is read from this machine only; use https://")
    if not host or parts.fragment:
        raise ConfigError(f"a {parts.scheme}:// URL needs a host, and no fragment")
    folder = _folder_of(parts)
    url = urlunsplit(parts._replace(path=f"/{folder}"))
    shown_host = f"[{host}]" if ":" in host else host
    shown_host += f":{parts.port}" if parts.port else ""

    def connect(patience: Patience) -> "ObjectStore":
        from obstore.store import HTTPStore

        options = patience.client_options(allow_http=parts.scheme == "http")
        if parts.username is not None:  # the client would drop it
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            basic = base64.b64encode(login.encode()).decode()
            options["default_headers"] = {"Authorization": f"Basic {basic}"}
        address = urlunsplit(parts._replace(path=f"/{folder}", netloc=shown_host))
        return HTTPStore(address, client_options=options, retry_config=patience.retry_config())

    shown = f"{parts.scheme}://{shown_host}" + (f"/{folder}" if folder else "")
    return RemoteFolder(RemoteClient(url, shown, connect, patience))


def _open_hub(url: str, parts: SplitResult, patience: Patience) -> RemoteFolder:
    from .hub import HubFolder, check_address, find_commit, list_sizes

    address = f"{parts.netloc}/{_folder_of(parts)}".strip("/")
    if parts.query or parts.fragment:
        raise ConfigError("an hf:// URL has no query and no fragment")
    check_address(address)
    commit: HubFolder | None = None

    def connect(patience: Patience) -> "ObjectStore":
        from obstore.store import HTTPStore

        nonlocal commit
        commit = find_commit(address)
        options = patience.client_options(allow_http=_http_allowed("HF_ENDPOINT", commit.url))
        options["default_headers"] = commit.headers
        return HTTPStore(commit.url, client_options=options, retry_config=patience.retry_config())

    def list_folder(_store: "ObjectStore", folder: str) -> dict[str, int]:
        assert commit is not None, "listed before connecting"
        return list_sizes(commit, folder)

    shown = f"hf://{address}"
    return RemoteFolder(
        RemoteClient(shown, shown, connect, patience, size_by_get=True, list_folder=list_folder)
    )


def _list_objects(store: "ObjectStore", folder: str) -> dict[str, int]:
    import obstore

    found = obstore.list_with_delimiter(store, folder)
    return {item["path"]: item["size"] for item in found["objects"]}


def _folder_of(parts: SplitResult) -> str:
    folder = parts.path.removeprefix("/").removesuffix("/")
    names = folder.split("/") if folder else []
    if any(unquote(name) in ("", ".", "..") for name in names):
        raise ConfigError(f"the path of a {parts.scheme}:// URL must not hold //, . or ..")
    return folder


def _url_around(url: str) -> str | None:
    parts = urlsplit(url)
    if not parts.path.strip("/"):
        return None
    if parts.scheme == "hf":
        from .hub import is_repository

        if is_repository(f"{parts.netloc}{parts.path}"):
            return None
    around = parts.path.rstrip("/").rpartition("/")[0]
    return urlunsplit(parts._replace(path=around))


def _http_allowed(*names_or_urls: str) -> bool:
    """Tell whether the first endpoint that is set is plain HTTP, and may be."""
    for name in names_or_urls:
        endpoint = name if "://" in name else os.environ.get(name)
        if not endpoint:
            continue
        if not endpoint.lower().startswith("http://"):
            return False
        if _LOOPBACK.fullmatch(urlsplit(endpoint).hostname or ""):
            return True
        if name.startswith("AWS_") and os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true":
            return True
        more = "; set AWS_ALLOW_HTTP=true if that is meant" if name.startswith("AWS_") else ""
        raise ConfigError(f"{name} is plain http:// to another machine: use https://{more}")
    return False
