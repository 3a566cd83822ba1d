"""What is done for a GPU, as far as that can be seen without one: devices, events, precision."""

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from extract.numerics import computing_as
from laughstore.errors import ConfigError
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec
from laughstore.spec import Numerics
from tests.fake_cuda import fake_cuda
from train import DeviceCopies, HeadConfig, LossConfig, train
from train.distributed.gradients import Gradients
from train.distributed.place import Place
from train.distributed.ranks import RankLost, Ranks
from train.float32 import full_float32
from train.losses import EpochRows, make_loss
from train.model import ScoreModel
from train.moments import Standardiser
from train.scoring.call_scorer import CallScorer
from train.scoring.score import score_rows
from train.streaming.batch import Batch
from train.streaming.buffers import RING_BUFFERS
from train.streaming.device import choose_device
from train.streaming.selection import select
from train.streaming.source import FrameSource
from train.training.resume import check_made_on, made_on

from .conftest import DIM, config_for
from .test_call_scorer import HEADS, frames

PACKAGES = ("extract", "laughstore", "train")
REPOSITORY = Path(__file__).parents[2]
GPU = torch.device("cuda:1")
"""Not the current one."""


def a_batch() -> Batch:
    x, y = torch.zeros(8, DIM, dtype=torch.bfloat16), torch.zeros(8)
    return Batch(x, y, torch.ones(8), torch.arange(8), epoch=0, step=0, num_real=8)


@pytest.mark.parametrize("name", ["cuda:99", "gpu", ""])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device {name!r} cannot be used here"):
        choose_device(name)


def test_a_buffer_is_copied_before_the_stream_has_it_again(monkeypatch):
    """Whatever a loop does between two copies."""
    with fake_cuda(monkeypatch) as cuda:
        copies = DeviceCopies(GPU)
        for number in range(10):
            found = copies.copy(a_batch())
            assert {item.device for item in found} == {GPU}
            assert cuda.events[number].device == GPU
            # The next batch is number + 1.
            again = number + 1 - RING_BUFFERS
            assert all(event.is_over for event in cuda.events[: again + 1])
            assert len(cuda.unfinished) <= RING_BUFFERS - 1, "and no more is waited for, or kept"
        assert cuda.num_pinned == 2 * 10, "targets and weights are copied asynchronously, too"


def test_events_and_streams_are_those_of_a_named_device():
    """By themselves they are the current device's: see the test of extraction."""
    bare = [
        f"{path.relative_to(REPOSITORY)}, line {node.lineno}"
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        if ".cuda." in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and not node.args and not node.keywords
        if ast.unparse(node.func).endswith((".record", "current_stream", "cuda.synchronize"))
    ]
    assert bare == []


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_answers_and_losses_on_a_gpu_mix_no_devices(name, monkeypatch):
    """Of memory of the machine and of the GPU, in one operation."""
    with fake_cuda(monkeypatch), torch.no_grad():  # autograd would look for a driver
        model = ScoreModel.new(HEADS[name], Standardiser.none(DIM), pos_weight=2.0, bias=-1.0).to(
            GPU
        )
        loss_of = make_loss(LossConfig("bce"), EpochRows(1, 1, 1, 0.5))
        x, y, weight = DeviceCopies(GPU).copy(a_batch())
        loss = loss_of(model(x), y, weight, num_real=8, world_size=1)
        assert loss.device == GPU


def test_ranks_sum_a_copy_in_memory_of_the_machine(monkeypatch):
    """As on GPUs. A sum among those is only begun by the call, and one that never ends hangs."""
    summed: list[torch.Tensor] = []

    def end(values: torch.Tensor, *, async_op: bool) -> None:
        summed.append(values)
        raise RuntimeError("nobody else is here")

    monkeypatch.setattr(torch.distributed, "all_reduce", end)
    weight = torch.nn.Parameter(torch.zeros(3, 2))
    gradients = Gradients([weight], Ranks(Place(world_size=2)))
    with pytest.raises(RankLost, match="nobody else is here"):
        gradients.of((weight * 2).sum() + 5, 7)
    assert weight.grad is not None
    (values,) = summed
    assert values.tolist() == [2.0] * 6 + [5, 7, 0, 0]
    assert values.device.type == "cpu"
    assert values.untyped_storage().data_ptr() != weight.grad.untyped_storage().data_ptr()


class Products(TorchFunctionMode):
    """Notes whether factors of each product may be rounded to TF32."""

    NAMES = ("linear", "addmm", "addmm_", "matmul", "__matmul__", "conv1d", "bmm", "baddbmm")

    def __init__(self) -> None:
        super().__init__()
        self.rounded: list[bool] = []

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        if getattr(func, "__name__", "") in self.NAMES:
            self.rounded.append(may_round())
        return func(*args, **(kwargs or {}))


BACKENDS: Any = torch.backends
"""Its types do not know all that it has."""
PLACES = (
    BACKENDS.cuda.matmul,
    BACKENDS.cudnn.conv,
    BACKENDS.cudnn.rnn,
    BACKENDS.mkldnn.matmul,
    BACKENDS.mkldnn.conv,
    BACKENDS.mkldnn.rnn,
)


def precisions() -> list[str]:
    return [place.fp32_precision for place in PLACES]


def may_round() -> bool:
    return not {"ieee", "none"}.issuperset(precisions())


@pytest.fixture
def tf32() -> Iterator[None]:
    """TF32 is allowed, as where features are extracted with --allow-tf32."""
    with computing_as(Numerics(1, 16, 1, "float32", allow_tf32=True)):
        assert may_round()
        yield
        assert may_round(), "as it was before"


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_scores_are_made_of_full_products(head, tf32):
    model = ScoreModel.new(head, Standardiser.none(64), pos_weight=2.0, bias=-1.0)
    with Products() as products:
        CallScorer(model, 16).score(frames(16))
    assert products.rounded
    assert not any(products.rounded)


def test_evaluating_and_training_are_made_of_full_products(planted_shards, tmp_path, tf32):
    seen: list[bool] = []
    config = config_for(planted_shards, tmp_path / "run", epochs=1)
    with Products() as products:
        result = train(config, progress=lambda report: seen.append(may_round()))
        index = read_index(planted_shards)
        model = ScoreModel(HeadConfig(), DIM)
        with FrameSource(index, "validation") as source:
            score_rows(model, select(index, "validation", LabelSpec()), source)
    assert result.steps
    assert products.rounded
    assert not any(products.rounded)
    assert seen
    assert not any(seen)


def allow_it_in_the_former_way() -> None:
    BACKENDS.cuda.matmul.allow_tf32 = True


def allow_it_for_products_alone() -> None:
    BACKENDS.cuda.matmul.fp32_precision = "tf32"
    BACKENDS.cudnn.conv.fp32_precision = "ieee"


def allow_it_everywhere() -> None:
    BACKENDS.fp32_precision = "tf32"


def allow_bfloat16_on_cpus() -> None:
    torch.set_float32_matmul_precision("medium")


@pytest.fixture
def former_precisions() -> Iterator[None]:
    everywhere, before = BACKENDS.fp32_precision, precisions()
    for place in PLACES:  # a build of another test has set them in this process
        place.fp32_precision = "none"
    yield
    torch.set_float32_matmul_precision("highest")
    BACKENDS.fp32_precision = everywhere
    for place, precision in zip(PLACES, before, strict=True):
        place.fp32_precision = precision


@pytest.mark.parametrize(
    "allow",
    [
        allow_it_in_the_former_way,
        allow_it_for_products_alone,
        allow_it_everywhere,
        allow_bfloat16_on_cpus,
    ],
)
@pytest.mark.usefixtures("former_precisions")
def test_products_are_full_and_then_as_the_caller_has_allowed_them(allow):
    """In whichever way: torch raises where it is asked by one and was told by another."""
    factors = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    full = factors @ factors.T
    allow()
    before, rounded = precisions(), factors @ factors.T
    assert may_round()
    for block in (
        full_float32(),
        computing_as(Numerics(1, 16, torch.get_num_threads(), "float32", allow_tf32=False)),
    ):
        with block:
            assert not may_round()
            assert torch.equal(factors @ factors.T, full)
        assert precisions() == before
    assert precisions() == before
    assert torch.equal(factors @ factors.T, rounded)
    if allow is allow_it_everywhere:
        BACKENDS.fp32_precision = "ieee"
        assert not may_round(), "what went by it still does"
    elif allow is not allow_it_for_products_alone:
        assert torch.get_float32_matmul_precision() != "highest"
        assert BACKENDS.cuda.matmul.allow_tf32


def test_a_run_that_goes_on_with_another_gpu_is_warned_of(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    first, second = made_on(torch.device("cuda:0"), 2), made_on(GPU, 2)
    with caplog.at_level(logging.WARNING):
        check_made_on(first, dict(first))
    assert not caplog.records
    check_made_on(first, second)
    assert "low bits may differ: device was GPU 0 and is GPU 1" in caplog.text
    assert made_on(torch.device("cpu"), 1)["device"] == "cpu"
