"""A small corpus and a store built from it through the command line."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from laughstore.cli.main import main

Run = Callable[..., tuple[int, str, str]]
"""Arguments of a command line -> (exit code, stdout, stderr)."""

EPISODES: Mapping[str, int] = {"train": 2, "validation": 1, "test": 1}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set that tests must not change."""
    from extract.synthetic.corpus import write_synthetic_corpus

    return write_synthetic_corpus(
        tmp_path_factory.mktemp("data") / "corpus", episodes=EPISODES, seconds=15
    )


@pytest.fixture(scope="session")
def built(corpus: Path, nano_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store built from the corpus; tests must not change it."""
    store = tmp_path_factory.mktemp("built") / "store"
    code = main(
        ["build", str(corpus), "--store", str(store), "--model", str(nano_checkpoint), "-q"]
    )
    assert code == 0
    return store
