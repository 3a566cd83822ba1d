"""Which device a process computes on."""

import pytest
import torch

from extract.batch import PendingFrames
from extract.model import load_model
from extract.settings import choose_device
from laughstore.errors import ConfigError
from tests.fake_cuda import fake_cuda


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


@pytest.mark.parametrize("name", ["cuda:1", "cuda:0"])
def test_frames_are_waited_for_on_the_gpu_that_makes_them(name, monkeypatch):
    """An event of another GPU is over at once, and memory with older frames would be stored."""
    device = torch.device(name)
    with fake_cuda(monkeypatch) as cuda:
        features = torch.zeros(4, 3, 8, dtype=torch.bfloat16, device=device)
        codes = torch.zeros(4, 3, 17, dtype=torch.int64, device=device)
        finite = torch.ones(2, 3, dtype=torch.bool, device=device)
        pending = PendingFrames(features, codes, finite, [2, 2, 3])
        assert [event.device for event in cuda.events] == [device]
        assert {str(item.device) for item in pending._tensors} == {"cpu"}
        assert cuda.num_pinned == 3


def test_a_process_takes_memory_of_its_own_gpu_alone(monkeypatch):
    with fake_cuda(monkeypatch) as cuda:
        for device in ("cpu", "cuda:1", "cuda"):
            load_model(None, device=device, dtype=torch.float32, tap="logmel")
            assert str(cuda.current) == ("cuda:0" if device == "cpu" else "cuda:1")
