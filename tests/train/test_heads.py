"""Heads against their definitions, and what they draw against what it is to depend on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import erf, expit

from laughstore.cli.main import main
from laughstore.errors import ConfigError, CorruptData
from laughstore.timebase import Span
from train import FrameStream, HeadConfig, evaluate, train
from train.heads import HEADS
from train.heads.dropout import drop_out, row_keys
from train.heads.initial import uniform
from train.losses import EpochRows, LossConfig, make_loss
from train.model import ScoreModel
from train.moments import Standardiser
from train.runs.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from train.runs.run import Run
from train.training.optimiser import learning_rate, make_optimiser

from .conftest import config_for

CONFIGS = [
    HeadConfig(),
    HeadConfig("mlp", hidden=5),
    HeadConfig("mlp", hidden=3, activation="relu", dropout=0.5),
    HeadConfig("mlp", hidden=1, activation="silu"),
    HeadConfig("temporal", context=Span("5f"), channels=4),  # more in test_temporal.py
]
ACTIVATIONS = {
    "gelu": lambda z: z * (1 + erf(z / 2**0.5)) / 2,
    "relu": lambda z: np.maximum(z, 0),
    "silu": lambda z: z * expit(z),
}


def some_model(config: HeadConfig, dim: int = 6, *, seed: int = 0) -> ScoreModel:
    """A model whose weights are all drawn, not only those that begin so."""
    rng = np.random.default_rng(dim)
    standardiser = Standardiser(
        (10 * rng.standard_normal(dim)).astype(np.float32),
        np.exp(rng.standard_normal(dim)).astype(np.float32),
    )
    model = ScoreModel.new(config, standardiser, pos_weight=1.0, bias=-2.0, seed=seed)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value += torch.randn(value.shape, generator=generator) / 2
    return model


def slow_answers(model: ScoreModel, x: torch.Tensor) -> NDArray[np.float64]:
    """The head on standardised inputs, as it is written down, in float64."""
    tensors = {name: value.double().numpy() for name, value in model.state_dict().items()}
    standard = (x.double().numpy() - tensors["mean"]) * tensors["inverse_std"]
    hidden = standard @ tensors["head.first.weight"].T + tensors["head.first.bias"]
    if model.config.head == "linear":
        return hidden[:, 0]
    hidden = ACTIVATIONS[model.config.activation](hidden)
    return hidden @ tensors["head.last.weight"][0] + tensors["head.last.bias"][0]


@given(st.sampled_from(CONFIGS[:-1]), st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_answers_are_those_of_the_definition_on_standardised_inputs(config, dim, rows, seed):
    model = some_model(config, dim, seed=seed)
    noise = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    x = (noise / model.inverse_std + model.mean).bfloat16()
    found = model(x).detach()
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(slow_answers(model, x), abs=2e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_an_untrained_head_answers_its_bias_and_trains_all_its_weights(config):
    rows = EpochRows(positives=3, negatives=97, all_negatives=97, mean_target=0.03)
    loss = make_loss(LossConfig("bce"), rows)
    standardiser = Standardiser(np.zeros(6, np.float32), np.ones(6, np.float32))
    model = ScoreModel.new(config, standardiser, pos_weight=1.0, bias=loss.start)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(config.context_frames + 40, 6, generator=generator).bfloat16()
    y, weight = (x[-40:, 0] > 0).float(), torch.ones(40)
    x = x[None] if config.context_frames else x
    assert model.score(x).flatten().tolist() == pytest.approx([0.03] * 40, rel=1e-5)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):  # the last layer moves first
        optimiser.zero_grad()
        loss(model(x).flatten(), y, weight, num_real=40, world_size=1).backward()
        optimiser.step()
    assert all(not torch.equal(before[name], value) for name, value in model.named_parameters())


def test_first_weights_depend_on_the_seed_alone_and_touch_no_generator_of_others():
    state = torch.get_rng_state()
    config = HeadConfig("mlp", hidden=400)
    standardiser = Standardiser(np.zeros(100, np.float32), np.ones(100, np.float32))

    def first(seed: int) -> torch.Tensor:
        model = ScoreModel.new(config, standardiser, pos_weight=1.0, bias=0.0, seed=seed)
        return model.head.first.weight.detach()

    weights = first(7)
    assert torch.equal(weights, first(7))
    assert not torch.equal(weights, first(8))
    assert torch.equal(torch.get_rng_state(), state)
    # Variance 2 / D, which keeps the size of what relu passes on.
    assert float(weights.var()) == pytest.approx(2 / 100, rel=0.03)
    assert abs(float(weights.mean())) < 0.003


def test_first_weights_are_the_same_for_ever():
    found = uniform((2, 2), 1.0, 2**64 - 1)
    assert found.tolist() == FIRST_WEIGHTS


FIRST_WEIGHTS = [
    [-0.14627695083618164, 0.14302456378936768],
    [0.9825247526168823, 0.41122639179229736],
]
WORDS = st.integers(0, 2**64 - 1)


def slow_mix(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
    return word ^ (word >> 31)


@given(
    st.lists(st.integers(-1, 2**40), min_size=1, max_size=5),
    WORDS,
    st.integers(0, 10**9),
    st.sampled_from([0.1, 0.5, 0.75]),
)
def test_masks_are_a_hash_of_seed_step_frame_and_unit(frames, seed, step, share):
    golden = 0x9E3779B97F4A7C15
    keys = row_keys(torch.tensor(frames), seed=seed, step=step)
    kept = drop_out(torch.ones(len(frames), 7), keys, share)
    begin = slow_mix(seed) + slow_mix(golden * (step + 1) % 2**64)
    for frame, row in zip(frames, kept.tolist(), strict=True):
        key = slow_mix((frame * golden + begin) % 2**64)
        for unit, value in enumerate(row, start=1):
            number = slow_mix((key + unit * golden) % 2**64) >> 40
            assert value == pytest.approx(1 / (1 - share) if number / 2**24 >= share else 0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_leaves_out_its_share_of_every_unit_and_row_and_keeps_the_mean(share):
    frames = torch.arange(2000)
    kept = drop_out(torch.ones(2000, 50), row_keys(frames, seed=3, step=9), share)
    spread = (share * (1 - share)) ** 0.5
    assert float((kept == 0).float().mean()) == pytest.approx(share, abs=5 * spread / 100_000**0.5)
    for dim, count in ((0, 2000), (1, 50)):
        shares = (kept == 0).float().mean(dim=dim)
        assert float((shares - share).abs().max()) < 5.5 * spread / count**0.5
    assert float(kept.mean()) == pytest.approx(1, abs=5 * spread / (1 - share) / 100_000**0.5)
    other = drop_out(torch.ones(2000, 50), row_keys(frames, seed=3, step=10), share)
    agree = float(((kept == 0) == (other == 0)).float().mean())
    assert agree == pytest.approx(share**2 + (1 - share) ** 2, abs=0.01)


def test_gradients_with_dropout_are_the_same_on_any_number_of_ranks_and_in_any_order():
    model = some_model(HeadConfig("mlp", hidden=16, dropout=0.5))
    loss = make_loss(LossConfig("bce"), EpochRows(3, 5, 5, 0.4))
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(8, 6, generator=generator) * 3 + model.mean).bfloat16()
    y = torch.tensor([1.0, 0, 1, 0, 0, 1, 0, 0])
    frame = torch.tensor([5, 900, 17, 3, -1, 12, 8, 2**33])
    weight = (frame >= 0).float()

    def gradients(*ranks: list[int]) -> list[torch.Tensor]:
        model.zero_grad()
        for rows in ranks:
            keys = model.row_keys(frame[rows], seed=1, step=4)
            answers = model(x[rows], keys)
            found = loss(answers, y[rows], weight[rows], num_real=7, world_size=len(ranks))
            (found / len(ranks)).backward()
        values = [value.grad for value in model.parameters()]
        return [value.clone() for value in values if value is not None]

    whole = gradients(list(range(8)))
    assert len(whole) == 4
    shared = gradients([7, 2, 5, 0], [1, 6, 3, 4])
    for one, other in zip(whole, shared, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)
    # And what is scored is the whole head, whatever was left out in training.
    assert model.score(x).tolist() == pytest.approx(
        expit(slow_answers(model, x)).tolist(), abs=1e-4
    )


def test_a_head_without_dropout_asks_for_no_keys():
    for config in CONFIGS:
        keys = some_model(config).row_keys(torch.arange(4), seed=0, step=0)
        assert (keys is None) == (config.dropout == 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "lstm"}, "head is 'lstm'; it must be linear, mlp"),
        *(({"head": "mlp", "hidden": bad}, "hidden is") for bad in (0, -1, 2**16 + 1, 8.0)),
        *(({"head": "mlp", "dropout": bad}, "dropout is") for bad in (-0.1, 1.0, float("nan"))),
        ({"head": "mlp", "activation": "tanh"}, "must be gelu, relu or silu"),
        ({"hidden": 5}, "hidden is 5: head linear has none; drop it, or use --head mlp"),
        ({"head": "linear", "dropout": 0.1}, "head linear has none; drop it, or use --head mlp"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        HeadConfig(**settings)
    assert "\n" not in str(caught.value)


def test_a_run_s_config_holds_what_its_head_and_loss_read_and_nothing_else():
    config = config_for(Path("s"), Path("o"))
    assert not {"hidden", "dropout", "focal_gamma"} & config.to_json().keys()
    config = config_for(
        Path("s"), Path("o"), head=HeadConfig("mlp", hidden=8), loss=LossConfig("focal")
    )
    content = json.loads(json.dumps(config.to_json()))
    assert (content["hidden"], content["activation"], content["focal_gamma"]) == (8, "gelu", 2.0)
    again = type(config).from_json(content, where="here")
    assert (again.head, again.loss) == (config.head, config.loss)


@pytest.mark.slow
def test_an_mlp_learns_what_no_linear_head_can(either_way, tmp_path):
    lift = {}
    for head in (HeadConfig(), HeadConfig("mlp", hidden=64, dropout=0.1)):
        config = config_for(either_way, tmp_path / head.head, head=head, epochs=12, lr=0.01)
        result = train(config)
        assert result.best.lift is not None
        lift[head.head] = result.best.lift
        assert evaluate(config.out, device="cpu", timelines=0).metrics == result.best
    assert lift["linear"] < 2
    assert lift["mlp"] > 5


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_a_run_with_dropout_is_the_same_whatever_others_drew(either_way, tmp_path):
    files = []
    head = HeadConfig("mlp", hidden=16, dropout=0.3)
    for name in ("a", "b"):
        torch.rand(17 if name == "a" else 3)
        config = config_for(either_way, tmp_path / name, head=head, epochs=2, seed=4)
        train(config)
        path = checkpoint_path(tmp_path / name / "checkpoints", "last")
        files.append((path / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_a_run_draws_and_drops_out_as_its_seed_and_steps_say(either_way, tmp_path):
    head = HeadConfig("mlp", hidden=16, dropout=0.3)
    after = []
    for epochs in (1, 2):  # of one step each, so of all rows
        out = tmp_path / f"{epochs}"
        config = config_for(either_way, out, head=head, global_batch=65536, epochs=epochs, seed=4)
        train(config)
        after.append(load_checkpoint(checkpoint_path(out / "checkpoints", "last")).model)
    standardiser = Standardiser(after[0]["mean"].numpy(), after[0]["inverse_std"].numpy())
    with FrameStream(either_way, "train", global_batch=65536, seed=4) as stream:
        loss = make_loss(config.loss, EpochRows.of(stream.selection, None))
        model = ScoreModel.new(head, standardiser, pos_weight=1.0, bias=loss.start, seed=4)
        optimiser = make_optimiser(model, config)
        for step in range(2):
            stream.set_epoch(step)
            (batch,) = stream
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, 2, peak=config.lr)
            optimiser.zero_grad()
            answers = model(batch.x, row_keys(batch.frame, seed=4, step=step))
            loss(answers, batch.y, batch.weight, num_real=batch.num_real, world_size=1).backward()
            optimiser.step()
            for name, value in model.state_dict().items():
                # The bias begins where its gradient is 0, and Adam's first step goes by its sign.
                if (step, name) != (0, "head.last.bias"):
                    assert torch.allclose(value, after[step][name], rtol=1e-3, atol=1e-5), name
            model.load_state_dict(after[step])


def test_a_checkpoint_says_what_its_tensors_are_of(either_way, tmp_path):
    head = HeadConfig("mlp", hidden=8, activation="silu")
    config = config_for(either_way, tmp_path / "run", head=head, epochs=1)
    best = train(config).best
    path = checkpoint_path(config.out / "checkpoints", "best")
    checkpoint = load_checkpoint(path)
    told = checkpoint.state["model"]
    assert told == {"head": head.to_json(), "dim": 16, "scores": "probability"}
    again = ScoreModel.described(told, dim=16, where="here")
    again.load_state_dict(checkpoint.model)
    assert again.config == head
    for change in ({"dim": 2**40}, {"scores": "fate"}, {"head": {"head": "lstm"}}, {"head": 3}):
        with pytest.raises(CorruptData, match="here: describes no model of this release"):
            ScoreModel.described(told | change, dim=16, where="here")
    # Runs of earlier releases say it in their config alone.
    del checkpoint.state["model"]
    older = save_checkpoint(tmp_path / "older", 1, checkpoint)
    assert evaluate(config.out, checkpoint=str(older), timelines=0, device="cpu").metrics == best


def test_the_command_line_takes_heads(either_way, tmp_path, capsys):
    words = ["--global-batch", "512", "--lanes", "16", "--epochs", "1", "--device", "cpu", "-q"]
    command = ["train", "--shards", str(either_way), "--out", str(tmp_path / "run"), *words]
    for wrong in (["--hidden", "5"], ["--head", "lstm"], ["--head", "mlp", "--dropout", "1"]):
        assert main([*command, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main([*command, "--head", "mlp", "--hidden", "5", "--dropout", "0.5"]) == 0
    assert Run.open(tmp_path / "run").config.head == HeadConfig("mlp", hidden=5, dropout=0.5)
    assert main(["evaluate", str(tmp_path / "run"), "--timelines", "0", "-q"]) == 0
    assert main(["inspect", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "head mlp, hidden 5, activation gelu, dropout 0.5" in told
    assert "loss bce, pos_weight none" in told


def test_every_head_is_tested():
    assert {config.head for config in CONFIGS} == set(HEADS)
