"""A real S3 server on loopback, alone or behind a proxy that makes faults: fixtures for tests."""

import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .loopback import FaultProxy

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 180.0

# The server ends with its standard input, so that a killed test run leaves none behind.
_S3_PROGRAM = """
import os, sys, threading
def watch():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=watch, daemon=True).start()
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""


@dataclass
class S3Server:
    """A real S3 server process on loopback."""

    process: "subprocess.Popen[bytes]"
    port: int
    bucket: str = "laughter"
    access_key_id: str = "AKIACANARYCANARY0001"
    secret_access_key: str = field(default="canary/secret/" + "x" * 26, repr=False)

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://{_HOST}:{self.port}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What a process needs in its environment; `endpoint`: of a proxy before the server."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.url,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": "us-east-1",
        }

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Ask it something; `path` begins with `/`."""
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=60)
        with contextlib.closing(connection):
            scope = f"{self.access_key_id}/20260101/us-east-1/s3/aws4_request"
            signed = {
                "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host,"
                " Signature=0"
            }
            connection.request(method, path, body=body, headers=signed)
            answer = connection.getresponse()
            data = answer.read()
        assert answer.status < 300, (method, path, answer.status, data[:300])
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        self.request("PUT", f"/{self.bucket}/{key}", data)

    def put_tree(self, root: Path, prefix: str) -> None:
        """Store all files of a folder below a prefix."""
        for path in sorted(root.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(root).as_posix()}", path.read_bytes())


def start_s3_server() -> S3Server:
    """Start an S3 server with an empty bucket; the caller ends it."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _S3_PROGRAM, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = S3Server(process, port)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ConnectionError):
            server.request("PUT", f"/{server.bucket}")
            return server
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the S3 server did not start (exit {process.wait()})")


def stop_s3_server(server: S3Server) -> None:
    """End the process."""
    assert server.process.stdin is not None
    server.process.kill()
    server.process.wait()
    server.process.stdin.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server with the bucket `s3_server.bucket`; use a prefix of your own in it."""
    server = start_s3_server()
    yield server
    stop_s3_server(server)


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with this process's environment leading to it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def fault_proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before the S3 server, with this process's environment leading to the proxy."""
    with FaultProxy(s3_server.port) as proxy:
        for name, value in s3_server.environment(proxy.url).items():
            monkeypatch.setenv(name, value)
        assert isinstance(proxy, FaultProxy)
        yield proxy
