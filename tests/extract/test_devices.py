"""Which device a process computes on."""

import pytest
import torch

from extract.settings import choose_device
from laughstore.errors import ConfigError


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as anybody asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_of_a_machine_takes_a_gpu_in_a_circle(name, four_gpus):
    devices = [str(choose_device(name, local_rank)) for local_rank in range(6)]
    assert devices == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0", "cuda:1"]
    assert str(choose_device(name)) == "cuda"


def test_what_was_asked_for_by_number_is_taken(four_gpus):
    assert str(choose_device("cuda:2", 1)) == "cuda:2"
    assert str(choose_device("cpu", 1)) == "cpu"
    with pytest.raises(ConfigError, match="there are 4"):
        choose_device("cuda:4", 0)


def test_without_a_gpu_every_process_takes_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [str(choose_device("auto", rank)) for rank in range(3)] == ["cpu"] * 3
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        choose_device("cuda", 0)
