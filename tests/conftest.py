"""Settings that every test runs under, and the small checkpoints that many of them share."""

import os

# moshi reads the first when it is imported: without it the CPU would compile C++ for half a minute.
os.environ["NO_TORCH_COMPILE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# Set by `uv run`; commands would say `uv run laughstore` in what they tell the user to type.
os.environ.pop("UV_RUN_RECURSION_DEPTH", None)
# Read when torch is imported. The models of the tests are so small that waking a second thread
# takes longer than it saves, and on a busy machine five times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
import sys
from pathlib import Path

# Without bytecode, every child that imports torch compiles its two thousand files again, which
# takes longer than most tests. Where none may lie beside the sources, it is kept in a cache.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    cache = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(cache)

import pytest
from hypothesis import settings

from .store.servers import fault_proxy, s3_environment, s3_server  # noqa: F401 (fixtures)

# A shell that runs tests in the background has SIGINT ignored, and children would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes any example slow now and then; that says nothing about the code.
settings.register_profile("laughstore", deadline=None)
settings.load_profile("laughstore")


@pytest.fixture(scope="session")
def nano_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with features of 64 channels."""
    from extract.synthetic.tiny_checkpoint import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "nano", size="nano")


@pytest.fixture(scope="session")
def wide_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with features of 4096 channels, as released."""
    from extract.synthetic.tiny_checkpoint import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "wide", size="wide")


@pytest.fixture(scope="session")
def minicorpus_script() -> Path:
    """The program that mixes real laughs into a corpus; it is no part of this project."""
    script = Path(__file__).parents[2] / "shared" / "minicorpus" / "make_corpus.py"
    if not script.is_file():
        pytest.skip("the folder shared/minicorpus (real laughs) does not stand beside the project")
    return script
