"""One server for all tests of faults."""

from collections.abc import Iterator

import pytest

from .harness import FaultServer, compile_shim


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    """Children under the shim."""
    folder = tmp_path_factory.mktemp("faults")
    with FaultServer(compile_shim(folder), folder) as server:
        yield server
