"""HTTP servers of this process for tests: plain files, a model hub, and a proxy that makes faults.

`FaultProxy` stands before any server of this machine and spoils the answers it is told to spoil.
"""

import contextlib
import http.client
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote

_HOST = "127.0.0.1"

FaultKind = Literal[
    "status",
    "cut",
    "stall",
    "reset",
    "trickle",
    "whole_body",
    "wrong_range",
    "short_range",
    "short_body",
    "cut_upload",
    "lost_answer",
    "hold",
    "hold_answer",
]


@dataclass
class Request:
    """What a server was asked."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Fault:
    """One way to spoil answers.

    Attributes:
        kind: `status` answers with `status` and nothing else; `cut` closes the connection within
            the body; `reset` resets it there; `stall` sends nothing more for `seconds` there;
            `trickle` sends a byte each `seconds`; `whole_body` answers 200 with everything;
            `wrong_range` answers with the range that begins one byte later, and says so;
            `short_range` with one byte less, and says so; `short_body` with one byte less, and
            says so in the length alone; `cut_upload` resets the connection within the request's
            body; `lost_answer` passes the request on and resets instead of answering; `hold` waits
            until the client has gone and passes nothing on; `hold_answer` passes the request on and
            waits until the client has gone. Both reset the connection when `released` is set.
        times: how many requests are spoilt; then it is spent.
        path: a pattern that the request's path must hold.
        method: of the requests; any when None.
    """

    kind: FaultKind
    times: int = 1
    status: int = 503
    seconds: float = 30.0
    path: str = ""
    method: str | None = "GET"
    done: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def takes(self, method: str, path: str) -> bool:
        return (
            self.done < self.times
            and self.method in (None, method)
            and re.search(self.path, path) is not None
        )


class LoopbackServer:
    """A threaded HTTP/1.1 server in this process; a context manager."""

    def __init__(self, answer: "Callable[[_Handler], None]", port: int = 0) -> None:
        self.requests: list[Request] = []
        self._server = _Server((_HOST, port), _Handler)
        self._server.owner = self
        self._server.answer = answer
        self.stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self.port}"

    def speak_tls(self, certificate: Path) -> None:
        """From now on, with a key and certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def count(self, method: str | None = None, path: str = "") -> int:
        """Number of requests whose path holds a pattern."""
        return sum(
            method in (None, request.method) and re.search(path, request.path) is not None
            for request in self.requests
        )

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    owner: LoopbackServer
    answer: "Callable[[_Handler], None]"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def _handle(self) -> None:
        self.server.owner.requests.append(
            Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        )
        self.server.answer(self)
        self.wfile.flush()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def log_message(self, format: str, *args: object) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, data: bytes = b"", **headers: str) -> None:
        """Answer with headers (`_` for `-`) and data; a HEAD gets the headers alone."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def reply_file(self, path: Path, *, ranges: bool = True, tag: bool = False) -> None:
        """Answer with a file, or the range asked for; `tag`: as object stores do, with an ETag."""
        if not path.is_file():
            self.reply(404, b"no such file")
            return
        data = path.read_bytes()
        about = {"ETag": f'"{hash(data)}"', "Last_Modified": formatdate(usegmt=True)} if tag else {}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not ranges or wanted is None:
            self.reply(200, data, Accept_Ranges="bytes" if ranges else "none", **about)
            return
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(len(data), int(last) + 1) if first and last else len(data)
        if start >= len(data):
            self.reply(416, Content_Range=f"bytes */{len(data)}")
            return
        part = f"bytes {start}-{stop - 1}/{len(data)}"
        self.reply(206, data[start:stop], Content_Range=part, **about)


class FileServer(LoopbackServer):
    """Files of a folder; with `ranges=False` a server that ignores ranges."""

    def __init__(
        self, root: Path, *, ranges: bool = True, tag: bool = False, user: str | None = None
    ) -> None:
        """`user`: the Authorization header without which it answers 401."""

        def answer(request: _Handler) -> None:
            if user is not None and request.headers.get("Authorization") != user:
                request.reply(401, b"who are you?")
                return
            path = unquote(request.path.split("?")[0]).lstrip("/")
            request.reply_file(root / path, ranges=ranges, tag=tag)

        super().__init__(answer)


class HubServer(LoopbackServer):
    """The endpoints of a model hub that reading needs: a commit's id, and its files.

    Files are redirected to a server of their own, as the hub does with large ones.
    """

    def __init__(self, repos: dict[str, Path], commit: str, *, token: str | None = None) -> None:
        """`repos`: `datasets/owner/name` -> folder of its files. `token`: 401 without it."""
        self.files = LoopbackServer(
            lambda request: request.reply_file(
                repos[request.path.split("//")[0].strip("/")] / request.path.split("//")[1]
            )
        )

        def answer(request: _Handler) -> None:
            if token is not None and request.headers.get("Authorization") != f"Bearer {token}":
                request.reply(401, b"", X_Error_Message="Invalid username or password.")
                return
            for repo, folder in repos.items():
                api = re.fullmatch(rf"/api/{repo}(/revision/([^/?]+))?(\?.*)?", request.path)
                if api and api[2] in (None, "main", "v1", commit):
                    name = repo.partition("/")[2]
                    about = {"id": name, "sha": commit, "siblings": [], "tags": []}
                    request.reply(200, json.dumps(about).encode(), Content_Type="application/json")
                    return
                if api:
                    request.reply(404, b"", X_Error_Code="RevisionNotFound")
                    return
                tree = re.fullmatch(rf"/api/{repo}/tree/{commit}/?([^?]*)(\?.*)?", request.path)
                if tree:
                    files = [
                        {
                            "type": "file",
                            "oid": "0" * 40,
                            "size": path.stat().st_size,
                            "path": path.relative_to(folder).as_posix(),
                        }
                        for path in (folder / unquote(tree[1])).iterdir()
                        if path.is_file()
                    ]
                    request.reply(200, json.dumps(files).encode(), Content_Type="application/json")
                    return
                asked = re.fullmatch(rf"/{repo}/resolve/{commit}/(.+)", request.path)
                if asked and (folder / asked[1]).is_file():
                    request.reply(302, Location=f"{self.files.url}/{repo}//{asked[1]}")
                    return
                if asked:
                    request.reply(404, b"", X_Error_Code="EntryNotFound")
                    return
            request.reply(404, b"", X_Error_Code="RepoNotFound")

        super().__init__(answer)

    def close(self) -> None:
        self.files.close()
        super().close()


class FaultProxy(LoopbackServer):
    """Passes requests to another server of this machine, and spoils some of the answers."""

    def __init__(self, port: int) -> None:
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._upstream_port = port
        super().__init__(self._pass_on)

    def spoil(self, *faults: Fault) -> None:
        """Replace the faults, and forget the requests."""
        with self._lock:
            self.faults = list(faults)
        self.requests.clear()

    def _take(self, request: _Handler) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.takes(request.command, request.path):
                    fault.done += 1
                    return fault
        return None

    def _pass_on(self, request: _Handler) -> None:
        fault = self._take(request)
        if fault is not None and fault.kind == "cut_upload":
            request.rfile.read(int(request.headers.get("Content-Length") or 0) // 2)
            self._reset(request)
            return
        data = request.body()
        if fault is not None and fault.kind == "hold":
            self._hold(request, fault)
            return
        if fault is not None and fault.kind == "status":
            request.reply(fault.status, b"<Error><Code>SlowDown</Code></Error>")
            return
        headers = {k: v for k, v in request.headers.items() if k.lower() != "connection"}
        _bend_range(headers, fault)
        upstream = http.client.HTTPConnection(_HOST, self._upstream_port, timeout=60)
        with contextlib.closing(upstream):
            upstream.request(request.command, request.path, body=data, headers=headers)
            answer = upstream.getresponse()
            body = answer.read()
        if fault is not None and fault.kind == "lost_answer":
            self._reset(request)
            return
        if fault is not None and fault.kind == "hold_answer":
            self._hold(request, fault)
            return
        if fault is not None and fault.kind == "short_body":
            body = body[:-1]
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() == "content-length" and request.command != "HEAD":
                request.send_header(name, str(len(body)))
            elif name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                request.send_header(name, value)
        request.end_headers()
        if fault is None or fault.kind not in ("cut", "reset", "stall", "trickle"):
            request.wfile.write(body)
            return
        self._break_off(request, fault, body)

    def _break_off(self, request: _Handler, fault: Fault, body: bytes) -> None:
        """Send half of a body, then what the fault says."""
        request.close_connection = True
        if fault.kind == "trickle":
            for byte in body:
                with contextlib.suppress(OSError):
                    request.wfile.write(bytes([byte]))
                    request.wfile.flush()
                if self.stopping.wait(fault.seconds):
                    return
            return
        request.wfile.write(body[: len(body) // 2])
        request.wfile.flush()
        if fault.kind == "stall":
            self.stopping.wait(fault.seconds)
        elif fault.kind == "reset":
            self._reset(request)

    @staticmethod
    def _reset(request: _Handler) -> None:
        request.close_connection = True
        linger = struct.pack("ii", 1, 0)
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.connection.close()

    def _hold(self, request: _Handler, fault: Fault) -> None:
        """Wait until the client has gone, or the fault is released."""
        request.close_connection = True
        request.connection.settimeout(0.05)
        while not self.stopping.is_set():
            if fault.released.is_set():
                self._reset(request)
                return
            try:
                if not request.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


def _bend_range(headers: dict[str, str], fault: Fault | None) -> None:
    name = next((name for name in headers if name.lower() == "range"), None)
    if name is None or fault is None:
        return
    if fault.kind == "whole_body":
        del headers[name]
        return
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", headers[name])
    if wanted is None:
        return
    start, last = int(wanted[1]), int(wanted[2])
    if fault.kind == "wrong_range":
        headers[name] = f"bytes={start + 1}-{last + 1}"
    elif fault.kind == "short_range":
        headers[name] = f"bytes={start}-{last - 1}"
