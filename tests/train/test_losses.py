"""Losses against their definitions, row by row in plain Python floats."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from laughstore.cli.main import main
from laughstore.errors import ConfigError
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec
from train import HeadConfig, LossConfig, evaluate, train
from train.losses import LOSSES, USUAL_LOSS, EpochRows, make_loss
from train.model import ScoreModel
from train.moments import Standardiser
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.runs.run import Run
from train.streaming.balance import num_negatives
from train.streaming.selection import select

from .conftest import DIM, config_for

ROWS = EpochRows(positives=30, negatives=600, all_negatives=970, mean_target=0.02)
CLASS_LOSSES = [
    LossConfig("bce"),
    LossConfig("bce", pos_weight="auto"),
    LossConfig("bce", pos_weight=7.5),
    LossConfig("focal"),
    LossConfig("focal", focal_alpha=0.9, focal_gamma=0.0),
    LossConfig("focal", focal_gamma=0.5),
    LossConfig("adaptive_focal"),
    LossConfig("adaptive_focal", focal_gamma=5.0),
]
NUMBER_LOSSES = [LossConfig("mse"), LossConfig("huber"), LossConfig("huber", huber_delta=1.5)]
ALL_LOSSES = CLASS_LOSSES + NUMBER_LOSSES


def log_sigmoid(z: float) -> float:
    return -math.log1p(math.exp(-z)) if z > 0 else z - math.log1p(math.exp(z))


def slow_loss(config: LossConfig, rows: EpochRows, z: float, y: float) -> float:
    """LABELS, section 6, for one row: z the head's answer."""
    log_p, log_other = log_sigmoid(z), log_sigmoid(-z)
    match config.loss:
        case "bce":
            weights = {"none": 1.0, "auto": rows.negatives / rows.positives}
            weight = config.pos_weight
            w = weights[weight] if isinstance(weight, str) else weight
            return -w * log_p if y else -log_other
        case "focal" | "adaptive_focal":
            alpha = config.focal_alpha
            if config.loss == "adaptive_focal":
                alpha = rows.negatives / (rows.negatives + rows.positives)
            if y:
                return -alpha * (1 - 1 / (1 + math.exp(-z))) ** config.focal_gamma * log_p
            return -(1 - alpha) * (1 / (1 + math.exp(-z))) ** config.focal_gamma * log_other
        case "mse":
            return (z - y) ** 2
        case "huber":
            error, delta = abs(z - y), config.huber_delta
            return error**2 / 2 if error <= delta else delta * (error - delta / 2)
    raise AssertionError(config.loss)


def slow_step(config: LossConfig, rows: EpochRows, step: list[tuple[float, float, bool]]) -> float:
    losses = [slow_loss(config, rows, z, y) for z, y, is_real in step if is_real]
    return sum(losses) / len(losses)


def targets_of(config: LossConfig) -> st.SearchStrategy[float]:
    if LOSSES[config.loss].targets == "classes":
        return st.sampled_from([0.0, 1.0])
    return st.floats(0, 1, width=32)


STEPS = st.sampled_from(ALL_LOSSES).flatmap(
    lambda config: st.tuples(
        st.just(config),
        st.lists(
            st.tuples(st.floats(-30, 30, width=32), targets_of(config), st.booleans()),
            min_size=2,
            max_size=40,
        )
        .filter(lambda rows: len(rows) % 2 == 0)
        .filter(lambda rows: any(is_real for _, _, is_real in rows)),
    )
)


def computed(
    config: LossConfig, rows: list[tuple[float, float, bool]], *, world_size: int, dtype: Any
) -> tuple[float, list[float]]:
    """Loss of a step and its gradient, as the mean over ranks that share its rows."""
    z, y, real = (torch.tensor(column, dtype=dtype) for column in zip(*rows, strict=True))
    z.requires_grad_()
    loss = make_loss(config, ROWS)
    num_real = sum(is_real for _, _, is_real in rows)
    share = len(rows) // world_size
    losses = [
        loss(
            z[start : start + share],
            y[start : start + share],
            real[start : start + share],
            num_real=num_real,
            world_size=world_size,
        )
        for start in range(0, len(rows), share)
    ]
    mean = torch.stack(losses).mean()
    (gradient,) = torch.autograd.grad(mean, z)
    return float(mean.detach()), gradient.tolist()


@given(STEPS)
@example((LossConfig("bce"), [(-7.0, 0.0, True), (7.0, 1.0, True)]))
@example((LossConfig("focal"), [(30.0, 1.0, True), (-30.0, 0.0, True)]))
@example((LossConfig("focal"), [(-30.0, 1.0, True), (30.0, 0.0, False)]))
@example((LossConfig("focal", focal_gamma=0.5), [(30.0, 1.0, True), (0.0, 0.0, True)]))
def test_a_step_is_the_mean_of_slow_losses_whatever_the_pads_and_the_ranks(step):
    config, rows = step
    expected = slow_step(config, ROWS, rows)
    for world_size in (1, 2):
        loss, _ = computed(config, rows, world_size=world_size, dtype=torch.float32)
        assert loss == pytest.approx(expected, rel=2e-5, abs=1e-7)


@given(STEPS)
@example((LossConfig("focal", focal_gamma=0.5), [(30.0, 1.0, True), (0.0, 0.0, True)]))
@example((LossConfig("focal", focal_gamma=0.0), [(30.0, 1.0, True), (-30.0, 1.0, True)]))
def test_gradients_are_those_of_differences_of_slow_losses(step):
    config, rows = step
    num_real, width = sum(is_real for _, _, is_real in rows), 1e-5
    _, gradient = computed(config, rows, world_size=2, dtype=torch.float64)
    for (z, y, is_real), slope in zip(rows, gradient, strict=True):
        if not is_real:
            assert slope == 0
            continue
        if config.loss == "huber" and abs(abs(z - y) - config.huber_delta) < width:
            continue  # a kink of the second derivative lies between the two points
        above, below = (slow_loss(config, ROWS, z + step, y) for step in (width, -width))
        assert slope * num_real == pytest.approx((above - below) / (2 * width), rel=1e-5, abs=1e-8)


def test_gradients_in_float32_are_finite_however_sure_the_head_is():
    rows = [(z, y, True) for z in (-200.0, -88.0, 0.0, 88.0, 200.0) for y in (0.0, 1.0)]
    for config in ALL_LOSSES:
        loss, gradient = computed(config, rows, world_size=1, dtype=torch.float32)
        assert math.isfinite(loss)
        assert all(math.isfinite(value) for value in gradient)


def test_the_legacy_reduction_is_the_sum_of_the_rows_of_all_ranks():
    rows = [(0.5, 1.0, True), (-1.0, 0.0, True), (2.0, 0.0, True), (3.0, 1.0, False)]
    config = LossConfig("focal", focal_reduction="legacy")
    expected = sum(slow_loss(config, ROWS, z, y) for z, y, is_real in rows if is_real)
    for world_size in (1, 2):
        z, y, real = (torch.tensor(column) for column in zip(*rows, strict=True))
        loss = make_loss(config, ROWS)
        parts = [
            loss(z[p], y[p], real[p], num_real=3, world_size=world_size)
            for p in torch.arange(4).chunk(world_size)
        ]
        assert float(torch.stack(parts).mean()) == pytest.approx(expected, rel=1e-5)


@given(
    st.sampled_from(CLASS_LOSSES),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
)
def test_a_head_starts_where_a_constant_answer_has_the_least_loss(config, positives, negatives):
    rows = EpochRows(positives, negatives, 2 * negatives, positives / (positives + negatives))
    start = make_loss(config, rows).start

    def mean(z: float) -> float:
        parts = (
            positives * slow_loss(config, rows, z, 1),
            negatives * slow_loss(config, rows, z, 0),
        )
        return sum(parts) / (positives + negatives)

    for step in (0.05, 0.5, 5.0):
        assert mean(start) < min(mean(start - step), mean(start + step))


def test_numbers_start_from_their_mean():
    for config in NUMBER_LOSSES:
        assert make_loss(config, ROWS).start == 0.02


def some_model(config: LossConfig, rows: EpochRows) -> ScoreModel:
    loss = make_loss(config, rows)
    return ScoreModel.new(
        HeadConfig(),
        Standardiser(np.zeros(6, np.float32), np.ones(6, np.float32)),
        pos_weight=loss.pos_weight,
        bias=loss.start,
        share_of_negatives=loss.share_of_negatives,
    )


@given(st.sampled_from(["none", "auto", 7.5]), st.integers(1, 999), st.integers(1, 999))
def test_an_untrained_head_scores_the_natural_rate_whatever_weights_and_balance(weight, p, k):
    rows = EpochRows(positives=p, negatives=k, all_negatives=2 * k, mean_target=p / (p + k))
    model = some_model(LossConfig("bce", pos_weight=weight), rows)
    scores = model.score(torch.randn(9, 6).bfloat16())
    assert scores.tolist() == pytest.approx([p / (p + 2 * k)] * 9, rel=1e-4)


@pytest.mark.parametrize("name", ["focal", "adaptive_focal"])
def test_focal_scores_are_those_of_the_head_and_no_probabilities(name):
    model = some_model(LossConfig(name), ROWS)
    x = torch.randn(9, 6).bfloat16()
    assert torch.equal(model.score(x), torch.sigmoid(model(x)))
    assert model.score(x)[0] > 3 * ROWS.positives / (ROWS.positives + ROWS.all_negatives)


def test_the_rows_of_an_epoch_are_those_of_the_selection_and_of_balance(planted_shards):
    index = read_index(planted_shards)
    for label in ("detection", "regression:2s"):
        selection = select(index, "train", LabelSpec(label))
        y, counts = selection.targets.astype(np.float64), selection.counts
        whole = EpochRows.of(selection, None)
        assert (whole.positives, whole.negatives) == ((y > 0).sum(), (y == 0).sum())
        assert whole.all_negatives == whole.negatives
        assert whole.mean_target == pytest.approx(y.mean(), rel=1e-12)
        part = EpochRows.of(selection, 1.5)
        assert part.negatives == num_negatives(counts.positives, counts.negatives, 1.5)
        assert part.all_negatives == counts.negatives
        assert part.mean_target == pytest.approx(y.sum() / (part.positives + part.negatives))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "l1"}, "loss is 'l1'; it must be auto, bce, focal, adaptive_focal, mse, huber"),
        *(({"loss": "bce", "pos_weight": bad}, "pos_weight is") for bad in (0, -1, math.inf, "on")),
        *(({"loss": "focal", "focal_alpha": bad}, "focal_alpha is") for bad in (0, 1, math.nan)),
        *(({"loss": "focal", "focal_gamma": bad}, "focal_gamma is") for bad in (-1, 21, math.nan)),
        *(({"loss": "huber", "huber_delta": bad}, "huber_delta is") for bad in (0, math.inf)),
        ({"loss": "focal", "focal_reduction": "sum"}, "focal_reduction is 'sum'"),
        ({"loss": "focal", "pos_weight": 2.0}, "loss focal has none; drop it, or use --loss bce"),
        ({"loss": "bce", "focal_gamma": 1.0}, "use --loss focal or adaptive_focal"),
        ({"loss": "adaptive_focal", "focal_alpha": 0.5}, "use --loss focal$"),
        ({"loss": "mse", "huber_delta": 0.5}, "use --loss huber"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        LossConfig(**settings)
    assert "\n" not in str(caught.value)


def test_auto_is_the_usual_loss_of_a_label_and_keeps_its_arguments():
    detection, regression = LabelSpec(), LabelSpec("regression:10s")
    assert LossConfig().for_label(detection) == LossConfig("bce")
    assert LossConfig().for_label(regression) == LossConfig("mse")
    assert LossConfig(pos_weight=3.0).for_label(detection) == LossConfig("bce", pos_weight=3.0)
    with pytest.raises(ConfigError, match=r"loss mse has none; drop it$"):
        LossConfig(pos_weight=3.0).for_label(regression)
    assert {LOSSES[name].targets for name in USUAL_LOSS.values()} == {"classes", "numbers"}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_for_other_targets_is_refused_and_the_fitting_ones_named(name):
    labels = {"classes": LabelSpec("onset:0.8s"), "numbers": LabelSpec("regression:10s")}
    kind = LOSSES[name].targets
    assert LossConfig(name).for_label(labels.pop(kind)) == LossConfig(name)
    (wrong,) = labels.values()
    told = {"classes": "mse or huber", "numbers": "bce, focal or adaptive_focal"}[kind]
    with pytest.raises(ConfigError, match=f"use --loss {told}$"):
        LossConfig(name).for_label(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["focal", "adaptive_focal"])
def test_a_focal_run_learns_and_is_scored(planted_shards, tmp_path, name):
    config = config_for(planted_shards, tmp_path / "run", loss=LossConfig(name), epochs=8)
    result = train(config)
    assert result.best.lift is not None
    assert result.best.lift > 3
    model = load_checkpoint(checkpoint_path(result.run / "checkpoints", "best")).model
    assert len(model["mean"]) == DIM
    assert model["log_pos_weight"] == model["log_balance"] == 0
    assert evaluate(config.out, device="cpu", timelines=0).metrics == result.best


def test_the_command_line_takes_losses_and_refuses_others(planted_shards, tmp_path, capsys):
    words = ["--global-batch", "512", "--lanes", "16", "--epochs", "1", "--device", "cpu", "-q"]
    command = ["train", "--shards", str(planted_shards), "--out", str(tmp_path / "run"), *words]
    for wrong in (["--loss", "mse"], ["--loss", "l1"], ["--focal-gamma", "3"]):
        assert main([*command, *wrong]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "focal" in error
    assert main([*command, "--loss", "focal", "--focal-gamma", "1"]) == 0
    assert Run.open(tmp_path / "run").config.loss == LossConfig("focal", focal_gamma=1.0)
