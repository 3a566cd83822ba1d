"""Parts of many probes: tables of targets, losses and heads computed together."""

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from laughstore import open_shards
from laughstore.labels import LabelSpec
from laughstore.timebase import Span
from train.config import LossConfig
from train.heads import HeadConfig
from train.losses import EpochRows, make_loss
from train.model import ScoreModel
from train.moments import Standardiser
from train.probes.linear_step import linear_step
from train.probes.stacked import ProbeModel, StackedHeads
from train.probes.stacked_loss import StackedLoss
from train.probes.target_table import TargetTable
from train.scoring.ranking import RankedRows
from train.streaming.selection import FrameFilter, select


def test_a_table_gives_the_targets_of_each_label(planted_shards):
    """Of 19 labels of both kinds, for rows in any order, of a filter that leaves gaps."""
    index = open_shards(planted_shards)
    frames = FrameFilter(min_context=Span("20f"), exclude="*part-1*")
    labels = [LabelSpec(f"onset:{n}f") for n in range(1, 18)]
    labels[3:3] = [LabelSpec("regression:2s")]
    labels.append(LabelSpec("regression:3s"))
    rows = select(index, "train", None, frames)
    table = TargetTable(rows, 17, 2)
    selections = [select(index, "train", label, frames) for label in labels]
    for selection in selections:
        table.add(selection)
    rng = np.random.default_rng(0)
    asked = rng.permutation(rows.frames)[:1000]
    asked[::7] = -1
    picked = [3, 18, 0, 16, 5]
    y, counted = table.of(asked, picked)
    everything, _ = table.of(asked, range(len(labels)))
    assert (y.dtype, everything.shape) == (np.float32, (1000, 19))
    for column, number in enumerate(picked):
        of = selections[number]
        targets = dict(zip(of.frames.tolist(), of.targets.tolist(), strict=True))
        expected = [targets.get(frame, 0.0) for frame in asked.tolist()]
        assert counted[:, column].tolist() == [frame in targets for frame in asked.tolist()]
        assert (y[:, column] * counted[:, column]).tolist() == expected
        assert np.array_equal(everything[:, number], y[:, column])
        real = asked[asked >= 0]
        alone, known = table.column(real, number)
        assert alone.dtype == of.y.dtype
        assert known.tolist() == [frame in targets for frame in real.tolist()]
        assert alone[known].tolist() == [targets[frame] for frame in real[known].tolist()]


@pytest.mark.parametrize("loss", ["bce", "focal", "adaptive_focal"])
def test_losses_together_are_those_of_each(loss):
    pos_weight = "auto" if loss == "bce" else "none"
    classes = LossConfig(loss, pos_weight=pos_weight)
    losses = [make_loss(classes, EpochRows(n, 1000 - n, 1000 - n, n / 1000)) for n in (7, 40, 300)]
    losses += [make_loss(LossConfig("huber"), EpochRows(5, 5, 5, 0.3))]
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(50, 4, generator=generator, requires_grad=True)
    y = (torch.rand(50, 4, generator=generator) < 0.3).float()
    together = StackedLoss(losses, torch.device("cpu")).of_rows(output, y)
    each = [item.of_rows(output[:, k], y[:, k]) for k, item in enumerate(losses)]
    torch.testing.assert_close(together, torch.stack(each, dim=1))
    ours, theirs = (
        torch.autograd.grad(total, output)[0]
        for total in (together.sum(), sum(each).sum())  # pyright: ignore
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("head", [HeadConfig(), HeadConfig("mlp", hidden=5)], ids=["linear", "mlp"])
def test_heads_together_answer_what_each_does(head):
    rng = np.random.default_rng(0)
    known = Standardiser(rng.random(12, np.float32), rng.random(12, np.float32))
    models = []
    for number in range(4):
        model = ScoreModel.new(
            head,
            known,
            pos_weight=1.0 + number,
            bias=number / 2,
            seed=number,
            scores="number" if number == 3 else "probability",
        )
        with torch.no_grad():
            for value in model.head.parameters():
                value += torch.from_numpy(rng.standard_normal(value.shape).astype(np.float32))
        models.append(model)
    stacked = ProbeModel.of(models)
    x = torch.from_numpy(rng.standard_normal((9, 12)).astype(np.float32)).bfloat16()
    expected = torch.stack([model.score(x) for model in models], dim=1)
    torch.testing.assert_close(stacked.score(x), expected)
    for ours, model in zip(stacked.alone(range(4)), models, strict=True):
        theirs = {f"head.{name}": value for name, value in model.head.named_parameters()}
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    kept = stacked.keeping([3, 1])
    torch.testing.assert_close(kept.score(x), expected[:, [3, 1]])
    again = StackedHeads.join(stacked.heads.split(stacked.heads.state_dict()))
    assert again.keys() == stacked.heads.state_dict().keys()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=60))
def test_a_ranking_tells_what_scikit_learn_tells(rows):
    positive = np.array([truth for truth, _ in rows])
    score = np.array([value / 7 for _, value in rows], np.float32)
    if not positive.any():
        positive[0] = True
    ranking = RankedRows.of(positive, score)
    expected = average_precision_score(positive, score)
    assert ranking.average_precision == pytest.approx(expected, rel=1e-12)
    if not positive.all():
        assert ranking.auroc == pytest.approx(roc_auc_score(positive, score), rel=1e-12)


@pytest.mark.parametrize("num_rows", [5, 511, 1100])
def test_threads_step_as_a_plain_loop_does(num_rows, two_threads):
    """Heads of both kinds, rows that are not counted, parts that no thread has alone."""
    generator = torch.Generator().manual_seed(0)
    dim, num_heads = 4096, 5
    x = (3 + torch.randn(num_rows, dim, generator=generator)).bfloat16()
    model = ProbeModel(HeadConfig(), dim, ("probability",) * 3 + ("number",) * 2)
    rows = EpochRows(50, 150, 150, 0.2)
    kinds: list[tuple[str, Literal["none", "auto"]]]
    kinds = [("bce", "none"), ("bce", "auto"), ("bce", "auto"), ("mse", "none"), ("mse", "none")]
    losses = [make_loss(LossConfig(name, pos_weight=weight), rows) for name, weight in kinds]
    with torch.no_grad():
        model.mean.normal_(3, 1, generator=generator)
        model.inverse_std.uniform_(0.5, 2, generator=generator)
        model.heads.first.weight.normal_(0, 0.01, generator=generator)
        model.heads.first.bias.normal_(generator=generator)
    y = (torch.rand(num_rows, num_heads, generator=generator) < 0.3).float()
    counted = torch.rand(num_rows, num_heads, generator=generator) < 0.8
    weight, bias = (value.detach().double() for value in model.heads.first.parameters())
    weight.requires_grad_()
    bias.requires_grad_()
    standard = (x.double() - model.mean) * model.inverse_std
    answers = standard @ weight.T + bias
    each = [item.of_rows(answers[:, k], y[:, k].double()) for k, item in enumerate(losses)]
    expected = (torch.stack(each, dim=1) * counted).sum(dim=0)
    expected.sum().backward()
    parameters = list(model.heads.first.parameters())
    found: list[list[torch.Tensor]] = []
    for _ in range(2):
        for value in parameters:
            value.grad = torch.zeros_like(value)
        sums = linear_step(model, StackedLoss(losses, x.device), x, y, counted)
        torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=0)
        for ours, theirs in zip(parameters, (weight, bias), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            assert (ours.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()
        found.append([sums, *(value.grad for value in parameters if value.grad is not None)])
    assert all(torch.equal(first, again) for first, again in zip(*found, strict=True))
    assert torch.get_num_threads() == 2
    with torch.inference_mode():
        scores = model.score(x)
    with torch.no_grad():
        answers = answers.float() - model.log_pos_weight
    assert torch.allclose(scores[:, :3], answers[:, :3].sigmoid(), atol=1e-5)
    assert torch.allclose(scores[:, 3:], answers[:, 3:], atol=1e-4)
