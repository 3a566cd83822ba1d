import subprocess
import sys

import pytest


def test_the_package_and_its_config_load_neither_torch_nor_scikit_learn():
    code = (
        "import sys, train, train.config, train.runs.run\n"
        "train.TrainConfig, train.FrameFilter\n"
        "heavy = {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_public_names_are_found_when_asked_for():
    import train

    assert [name for name in train.__all__ if not callable(getattr(train, name))] == []
    with pytest.raises(AttributeError, match="nonsense"):
        train.nonsense  # noqa: B018
