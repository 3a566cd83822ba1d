"""The temporal head: what its answers depend on, that all ways to score agree, and training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from laughstore.cli.main import main
from laughstore.errors import ConfigError
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec
from laughstore.timebase import FRAME_US, Span
from tests.stores import SPEAKERS, Episode, bf16_bits, laugh, write_store
from train import (
    EvaluationResult,
    FrameFilter,
    FrameStream,
    HeadConfig,
    LossConfig,
    evaluate,
    train,
)
from train.distributed.ranks import Ranks
from train.heads.temporal import reaches
from train.model import ScoreModel
from train.moments import Standardiser
from train.optimiser_config import OptimiserConfig
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.runs.run import Run
from train.scoring.metrics import FrameMetrics
from train.scoring.score import score_rows
from train.scoring.stream_scorer import StreamScorer
from train.streaming.selection import Selection, select
from train.streaming.sequence_shape import SequenceShape
from train.streaming.skip import without_blocks
from train.streaming.source import FrameSource

from .conftest import DIM, config_for
from .processes import on_ranks
from .test_heads import ACTIVATIONS, some_model
from .test_resume import Press, assert_same
from .test_skip import damage

BLOCK = 32


def temporal(context: int = 9, channels: int = 5, **changes: Any) -> HeadConfig:
    return HeadConfig("temporal", context=Span.of_frames(context), channels=channels, **changes)


@pytest.mark.parametrize("context", [*range(1, 130), 4095, 4096])
def test_layers_see_exactly_the_context_and_pass_over_no_row(context):
    seen = {0}
    for taps, dilation in reaches(context):
        seen = {row + tap * dilation for row in seen for tap in range(taps)}
    assert seen == set(range(context + 1))
    assert len(reaches(context)) <= np.log2(context) + 1


def slow_answers(
    model: ScoreModel, x: torch.Tensor, present: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Answers of the last rows of one sequence, layer by layer and row by row, in float64."""
    tensors = {name: value.double().numpy() for name, value in model.state_dict().items()}
    activate = ACTIVATIONS[model.config.activation]
    standard = (x.double().numpy() - tensors["mean"]) * tensors["inverse_std"]
    rows = standard @ tensors["head.first.weight"].T + tensors["head.first.bias"]
    rows[~present] = 0
    first = 0  # rows before it are not known any more
    for number, (num_taps, dilation) in enumerate(reaches(model.context)):
        taps, bias, across, shift = (
            tensors[f"head.layers.{number}.{name}"]
            for name in ("taps", "bias", "across.weight", "across.bias")
        )
        first += (num_taps - 1) * dilation
        made = rows.copy()
        for t in range(first, len(rows)):
            back = [t - (num_taps - 1 - tap) * dilation for tap in range(num_taps)]
            seen = bias + sum(taps[tap] * rows[at] for tap, at in enumerate(back))
            made[t] = rows[t] + across @ activate(seen) + shift
        rows = made
    assert first == model.context
    return activate(rows[first:]) @ tensors["head.last.weight"][0] + tensors["head.last.bias"][0]


@settings(max_examples=40)
@given(
    st.integers(1, 20),
    st.sampled_from(["gelu", "relu", "silu"]),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_answers_are_those_of_the_definition(context, activation, num_rows, seed):
    model = some_model(temporal(context, 3, activation=activation), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (2, context + num_rows)
    x = (torch.randn(*shape, 6, generator=generator) / model.inverse_std + model.mean).bfloat16()
    present = torch.rand(shape, generator=generator) > 0.2
    found = model(x, present=present).detach()
    assert (found.dtype, found.shape) == (torch.float32, (2, num_rows))
    for i in range(2):
        expected = slow_answers(model, x[i], present[i].numpy())
        assert found[i].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-3)


def changed_rows(model: ScoreModel, x: torch.Tensor, row: int) -> list[int]:
    """Rows whose scores change with one frame, counted from the first that is scored."""
    other = x.clone()
    other[0, row] += 50
    same = torch.isclose(model(x), model(other), rtol=0, atol=1e-6)[0]
    return torch.nonzero(~same)[:, 0].tolist()


def test_a_frame_changes_no_earlier_score_and_none_after_its_context():
    context, num_rows = 9, 40
    model = some_model(temporal(context, 8, activation="silu"))
    x = torch.randn(1, context + num_rows, 6, generator=torch.Generator().manual_seed(3)).bfloat16()
    for row in range(context + num_rows):
        t = row - context
        changed = changed_rows(model, x, row)
        assert set(changed) <= set(range(max(0, t), min(t + context + 1, num_rows)))
        # What it may change, it does, both ends of it included.
        if 0 <= t < num_rows - context:
            assert {t, t + context} <= set(changed)


def test_what_stands_in_absent_rows_is_nothing_whatever_the_mean():
    model = some_model(temporal(9))
    x = torch.randn(2, 30, 6, generator=torch.Generator().manual_seed(5)).bfloat16()
    present = torch.ones(2, 30, dtype=torch.bool)
    present[:, 4:12] = False
    other = x.clone()
    other[:, 4:12] = 1e4
    assert torch.equal(model.score(x, present), model.score(other, present))
    # Another mean of the features, and features moved by as much: the same model, the same scores.
    before = model.score(x, present)
    with torch.no_grad():
        model.mean += 2
    moved = (x.float() + 2).masked_fill(~present[..., None], 0)
    first = model.head.first
    weight = first.weight * model.inverse_std
    hidden = (moved - model.mean) @ weight.T + first.bias
    hidden[~present] = 0
    again = model.scores_of(model.head.rest(hidden, None))
    assert torch.allclose(before, again, rtol=1e-4)


def test_first_weights_depend_on_the_seed_alone_and_layers_draw_their_own():
    standardiser = Standardiser(np.zeros(50, np.float32), np.ones(50, np.float32))

    def drawn(seed: int) -> dict[str, torch.Tensor]:
        model = ScoreModel.new(temporal(30, 80), standardiser, pos_weight=1.0, bias=0.0, seed=seed)
        return {n: v.detach() for n, v in model.head.named_parameters() if v.ndim > 1}

    state = torch.get_rng_state()
    one, again, two = drawn(7), drawn(7), drawn(8)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not one.pop("last.weight").any()
    values = torch.cat([value.flatten() / value.abs().max() for value in one.values()])
    assert len(values.unique()) > 0.98 * len(values), "no layer repeats another's numbers"
    assert all(not torch.equal(one[name], two[name]) for name in one)
    variances = {"first.weight": 2 / 50, "layers.0.taps": 1 / 3, "layers.2.across.weight": 1 / 80}
    for name, variance in variances.items():
        assert float(one[name].var()) == pytest.approx(variance, rel=0.15), name


def begun_model(config: HeadConfig) -> ScoreModel:
    """A model of the planted features as training begins it, but for its last layer."""
    scale = np.exp(2 * np.random.default_rng(1).standard_normal(DIM))
    offset = 5 * scale * np.random.default_rng(2).standard_normal(DIM)
    standardiser = Standardiser(offset.astype(np.float32), (1 / scale).astype(np.float32))
    model = ScoreModel.new(config, standardiser, pos_weight=1.0, bias=-1.0, seed=1)
    last = model.get_parameter("head.last.weight" if config.context_frames else "head.first.weight")
    with torch.no_grad():
        last += torch.randn(last.shape, generator=torch.Generator().manual_seed(1)) / 3
    return model


def trained_scores(model: ScoreModel, shards: Path, shape: SequenceShape) -> dict[int, float]:
    """Scores of a split's rows as training sees them: in shuffled sequences."""
    with FrameStream(
        shards, "validation", global_batch=8 * BLOCK, lanes=8, sequence=shape
    ) as stream:
        found: dict[int, float] = {}
        for batch in stream:
            scores = model.score(batch.x, batch.present)
            counts = batch.weight[:, model.context :] > 0
            ids = batch.frame[:, model.context :][counts].tolist()
            found |= dict(zip(ids, scores[counts].tolist(), strict=True))
    return found


@pytest.mark.parametrize(("rows", "context"), [(32, 9), (8, 45), (1, 3)])
def test_shuffled_sequences_a_split_in_stretches_and_a_stream_in_calls_score_the_same(
    rows, context, planted_shards
):
    model = begun_model(temporal(context, 8, activation="relu"))
    index = read_index(planted_shards)
    selection = select(index, "validation", LabelSpec("onset:5f"))
    with FrameSource(index, "validation") as source:
        by_stretch = score_rows(model, selection, source)
        assert by_stretch.std() > 0.05
        shape = SequenceShape(rows, context)
        whole = select(index, "validation", LabelSpec())
        by_row = dict(
            zip(whole.frames.tolist(), score_rows(model, whole, source).tolist(), strict=True)
        )
        by_sequence = trained_scores(model, planted_shards, shape)
        assert by_sequence == pytest.approx(by_row, rel=1e-5, abs=1e-7)
        for stream in selection.streams:
            first = stream.first_block * BLOCK
            ids = np.arange(first, first + stream.num_frames)
            source.prepare(np.unique(ids // BLOCK))
            bits = torch.empty(len(ids), DIM, dtype=torch.int16)
            source.gather(ids, bits)
            x = bits.view(torch.bfloat16)
            here = np.isin(selection.frames, ids)
            scored = selection.frames[here] - first
            for size in (1, 7, 1000):
                scorer = StreamScorer(model)
                calls = [scorer.score(x[at : at + size]) for at in range(0, len(x), size)]
                assert torch.cat(calls).numpy()[scored] == pytest.approx(
                    by_stretch[here], rel=1e-5, abs=1e-7
                )


def test_a_stream_with_a_gap_in_calls_scores_what_its_sequences_do():
    model = some_model(temporal(9))
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(5)).bfloat16()
    present = torch.ones(60, dtype=torch.bool)
    present[20:27] = False
    scorer = StreamScorer(model)
    assert len(scorer.score(x[:0])) == 0
    calls = [scorer.score(x[at : at + 4], present[at : at + 4]) for at in range(0, 60, 4)]
    before = torch.zeros(9, 6, dtype=torch.bfloat16)
    at_once = model.score(
        torch.cat([before, x])[None], torch.cat([torch.zeros(9, dtype=torch.bool), present])[None]
    )
    assert torch.cat(calls).tolist() == pytest.approx(at_once[0].tolist(), rel=1e-5)
    # A head that reads one row is streamed by the same means.
    linear = some_model(HeadConfig())
    assert torch.allclose(StreamScorer(linear).score(x[:5]), linear.score(x)[:5])


def some_of(shards: Path) -> Selection:
    """Rows in patches, of blocks of which one cannot be read."""
    limits = FrameFilter(min_context=Span("99f"))
    selection = select(read_index(shards), "validation", LabelSpec("onset:9f"), limits)
    eligible = selection.eligible.copy()
    eligible[5:8], eligible[9], eligible[25, 3:] = False, False, False
    selection = replace(selection, eligible=eligible)
    return without_blocks(selection, selection.blocks[[13, 30]])


@pytest.mark.parametrize("context", [0, 45])
@pytest.mark.parametrize("world_size", [2, 3])
def test_scores_of_ranks_are_those_of_one_process_bit_for_bit(world_size, context, planted_shards):
    config = temporal(context, 8) if context else HeadConfig()
    model = begun_model(config)
    selection = some_of(planted_shards)

    def scores(place: Any = None) -> NDArray[np.float32]:
        with (
            FrameSource(selection.index, "validation", reader="window") as source,
            Ranks(*([place] if place else [])) as ranks,
        ):
            return score_rows(model, selection, source, ranks=ranks)

    alone = scores()
    assert len(alone) == selection.num_rows
    for ended in on_ranks(world_size, scores):
        assert np.array_equal(ended.result(), alone)


def test_stretches_beside_what_cannot_be_read_score_as_a_stream_with_a_gap(planted_shards):
    model = begun_model(temporal(45, 8))
    selection = some_of(planted_shards)
    assert selection.left_out is not None
    gone = selection.blocks[selection.left_out]
    with FrameSource(selection.index, "validation") as source:
        scores = score_rows(model, selection, source)
        for stream in selection.streams:
            first = stream.first_block * BLOCK
            ids = np.arange(first, first + stream.num_frames)
            ids[np.isin(ids // BLOCK, gone)] = -1
            source.prepare(np.unique(ids[ids >= 0] // BLOCK))
            bits = torch.empty(len(ids), DIM, dtype=torch.int16)
            source.gather(ids, bits)
            at_once = StreamScorer(model).score(
                bits.view(torch.bfloat16), torch.from_numpy(ids >= 0)
            )
            here = np.isin(selection.frames, ids)
            expected = at_once.numpy()[selection.frames[here] - first]
            assert scores[here] == pytest.approx(expected, rel=1e-5, abs=1e-7)


class Later(tuple[Episode, ...]):
    """Features of which a channel tells, 25 rows before, that the main speaker laughs."""

    LAG = 25

    def __call__(self, name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
        episode = next(item for item in self if item.name == name)
        x = np.random.default_rng([assignment, *name.encode()]).standard_normal((num_frames, 16))
        for event in episode.events:
            if event.speaker == SPEAKERS[assignment]:
                start, stop = (us // FRAME_US - self.LAG for us in (event.start_us, event.end_us))
                x[max(0, start) : max(0, stop), 3] += 4
        return bf16_bits((50 + 7 * x).astype(np.float32))


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards folder of a store whose laughs can be foreseen by who looks back."""
    rng = np.random.default_rng(0)

    def episode(split: str, number: int, num_frames: int) -> Episode:
        starts = np.arange(3.0, num_frames * 0.08 - 2, 3.2)
        events = [
            laugh(round(start, 2), round(start + 0.8, 2), SPEAKERS[int(rng.integers(2))])
            for start in starts.tolist()
        ]
        return Episode(f"{split} {number}", split, num_frames, events)

    episodes = Later(
        episode(split, number, num_frames)
        for split, counts in (("train", (800, 901, 650, 700)), ("validation", (600, 500)))
        for number, num_frames in enumerate(counts)
    )
    path = tmp_path_factory.mktemp("later") / "store"
    write_store(path, episodes, episodes, dim=16, block_frames=BLOCK, shard_frames=256)
    return path / "shards"


def assert_evaluates_to(best: FrameMetrics, run: Path) -> EvaluationResult:
    """Evaluation, which scores ignored rows too and so in other stretches, finds what was best."""
    found = evaluate(run, device="cpu", timelines=0)
    assert found.metrics.values == pytest.approx(best.values, rel=1e-5)
    assert (found.metrics.num_rows, found.metrics.undefined) == (best.num_rows, best.undefined)
    return found


@pytest.mark.slow
def test_a_temporal_head_learns_what_no_head_of_one_row_can(later, tmp_path):
    lift = {}
    for head in (HeadConfig(), HeadConfig("mlp", hidden=16), temporal(30, 16)):
        config = config_for(later, tmp_path / head.head, head=head, epochs=12, lr=0.01)
        result = train(config)
        assert result.best.lift is not None
        lift[head.head] = result.best.lift
        assert_evaluates_to(result.best, config.out)
    assert max(lift["linear"], lift["mlp"]) < 2
    assert lift["temporal"] > 5


@pytest.fixture(scope="module")
def short(later, tmp_path_factory):
    """A config of a run with dropout, but for its folder, and the run."""
    head = temporal(11, 6, dropout=0.2)

    def config(out: Path) -> Any:
        return config_for(later, out, head=head, epochs=3, sequence=Span("16f"), global_batch=256)

    return config, train(config(tmp_path_factory.mktemp("short") / "run"))


def test_a_stopped_run_ends_as_one_that_nobody_disturbed(short, tmp_path):
    config, whole = short
    num_steps = whole.steps // 3
    assert num_steps > 10
    mine = config(tmp_path / "run")
    stops = (Press(5), Press(num_steps), Press(1, phase="validate"), Press(2 * num_steps + 3))
    for press in stops:
        with pytest.raises(KeyboardInterrupt):
            train(mine, resume=True, progress=press)
    assert_same(train(mine, resume=True), whole)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_train_what_one_process_trains(world_size, short, tmp_path):
    config, whole = short
    mine = config(tmp_path / "run")
    for ended in on_ranks(world_size, lambda place: train(mine, place=place)):
        result = ended.result()
        assert (result.steps, result.best_epoch) == (whole.steps, whole.best_epoch)
        assert result.best.average_precision == pytest.approx(whole.best.average_precision, 1e-5)
    found, expected = (
        load_checkpoint(checkpoint_path(run / "checkpoints", "last")).model
        for run in (mine.out, whole.run)
    )
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["focal", "adaptive_focal", "mse", "huber"])
def test_all_losses_train_it(loss, later, tmp_path):
    label = LabelSpec("regression:2s" if loss in ("mse", "huber") else "detection")
    settings = {"head": temporal(30, 16), "label": label, "loss": LossConfig(loss), "lr": 0.02}
    config = config_for(later, tmp_path / "run", **settings)
    best = train(config).best
    assert best.lift is not None
    assert best.lift > 1.5
    assert_evaluates_to(best, config.out)


@pytest.mark.parametrize("preload", ["none", "cpu"])
def test_averages_low_precision_and_preloaded_rows_change_little(preload, short, tmp_path):
    config, whole = short
    how = OptimiserConfig(clip=1e3, ema=0.5, autocast="bf16")
    mine = replace(config(tmp_path / "run"), optimiser=how, preload=preload)
    best = train(mine).best
    assert best.average_precision == pytest.approx(whole.best.average_precision, abs=0.1)
    assert_evaluates_to(best, mine.out)


def test_preloaded_rows_are_those_that_are_streamed(short, tmp_path):
    config, whole = short
    result = train(replace(config(tmp_path / "run"), preload="cpu"))
    assert_same(result, whole)


def test_a_step_is_the_mean_over_its_rows(later, tmp_path):
    """The first loss of a run, of an untrained head, is the entropy of the rate of positives."""
    config = config_for(later, tmp_path / "run", head=temporal(), epochs=1, global_batch=65536)
    train(config)
    line = Run.open(config.out).metrics_log.read_text().splitlines()[0]
    selection = select(read_index(later), "train", config.label)
    rate = selection.counts.positives / selection.num_rows
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    assert f'"loss": {entropy:.4f}'[:-1] in line


def test_blocks_that_are_left_out_are_in_no_context(own_shards, tmp_path):
    listed = tmp_path / "bad.txt"
    listed.write_text("".join(f"{damage(own_shards, s)}\n" for s in ("train", "validation")))
    config = config_for(
        own_shards,
        tmp_path / "run",
        head=temporal(40),
        epochs=1,
        skip_corrupt=listed,
        verify="always",
    )
    best = train(config).best
    assert assert_evaluates_to(best, config.out).num_skipped_blocks == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": Span("0f")}, "context is 0f; it must be 1 to 4096 frames"),
        ({"context": Span("4097f")}, "context is 4097f"),
        ({"context": 30}, "context is 30"),
        ({"channels": 0}, "channels is 0; it must be 1 to 4096"),
        ({"channels": 4097}, "channels is 4097"),
        ({"channels": 2.5}, "channels is 2.5"),
        ({"hidden": 7}, "hidden is 7: head temporal has none; drop it, or use --head mlp"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        HeadConfig("temporal", **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence": Span("8f")}, "sequence is 8f: head linear reads one row at a time"),
        ({"head": temporal(), "balance": 3.0}, "balance is 3.0: head temporal is trained on seq"),
        ({"head": temporal(), "sequence": "all"}, "sequence is 'all'; it must be auto or a span"),
    ],
)
def test_runs_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config_for(Path("s"), Path("o"), **changes)


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 64),
        ({"global_batch": 8192}, 128),
        ({"global_batch": 512}, 8),
        ({"global_batch": 512, "lanes": 4}, 128),
        ({"global_batch": 448}, 1),
        ({"sequence": Span("2.56s")}, 32),
    ],
)
def test_auto_is_the_longest_part_of_a_block_that_a_lane_gives_to_a_step(changes, rows):
    config = config_for(
        Path("s"),
        Path("o"),
        head=temporal(7),
        **{"global_batch": 4096, "lanes": 64, **changes},
    )
    assert config.sequence_shape(128) == SequenceShape(rows, 7)
    assert type(config).from_json(config.to_json(), where="here") == config


@pytest.mark.slow
def test_the_command_line_trains_and_evaluates_it(later, tmp_path, capsys):
    words = ["--lanes", "16", "--epochs", "1", "--device", "cpu", "-q", "--head", "temporal"]
    command = ["train", "--shards", str(later), "--out", str(tmp_path / "run"), *words]
    for wrong in (
        ["--context", "30"],
        ["--context", "0f"],
        ["--sequence", "off"],
        ["--balance", "3"],
    ):
        assert main([*command, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    for wrong in (["--sequence", "5f"], ["--global-batch", "528", "--sequence", "32f"]):
        assert main([*command, *wrong]) == 2
        assert "the nearest values that work are" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    shape = ["--context", "0.8s", "--channels", "4", "--global-batch", "512"]
    assert main([*command, *shape]) == 0
    assert Run.open(tmp_path / "run").config.head == temporal(10, 4)
    # The same head, written in another unit.
    shape[1] = "10f"
    assert main([*command, *shape, "--resume"]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--timelines", "1", "-q"]) == 0
    assert main(["inspect", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "head temporal, activation gelu, dropout 0.0, context 10f, channels 4" in told
