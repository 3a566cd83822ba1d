from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def minicorpus_script() -> Path:
    """The program that mixes real laughs into a corpus; it is no part of this project."""
    script = Path(__file__).parents[3] / "shared" / "minicorpus" / "make_corpus.py"
    if not script.is_file():
        pytest.skip("the folder shared/minicorpus (real laughs) does not stand beside the project")
    return script
