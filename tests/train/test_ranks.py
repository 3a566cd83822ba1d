"""Several processes train what one would, end together, and never wait without end."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from laughstore import open_store
from laughstore.commit import commit_annotations
from laughstore.errors import ConfigError, CorruptData, LaughstoreError
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec
from laughstore.naming import recording_id
from tests.stores import laugh
from train import FrameFilter, FrameStream, HeadConfig, Progress, TrainConfig, TrainResult, train
from train.distributed.gradients import Gradients
from train.distributed.hanging import HANGING_S
from train.distributed.meeting import NotMetError, meet
from train.distributed.one_ahead import OneAhead
from train.distributed.place import Place
from train.distributed.ranks import TOLD, RankLost, Ranks
from train.kept_moments import KeptMoments
from train.losses import EpochRows, LossConfig, make_loss
from train.model import ScoreModel
from train.optimiser_config import OptimiserConfig
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.scoring.score import score_rows
from train.streaming.selection import select
from train.streaming.source import FrameSource

from .conftest import DIM
from .processes import Ended, on_ranks
from .test_resume import STEPS_AN_EPOCH, Press, assert_same, short, told


def trained_by(world_size: int, config: TrainConfig, **how) -> list[Ended]:
    return on_ranks(world_size, lambda place: train(config, place=place, **how))


@pytest.fixture(scope="module")
def whole(planted_shards, tmp_path_factory) -> dict[int, TrainResult]:
    """By number of ranks, runs that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    ends = {n: trained_by(n, short(planted_shards, folder / str(n))) for n in (1, 2, 4)}
    for ended in ends.values():
        first, *others = [replace(end.result(), seconds=0) for end in ended]
        assert all(other == first for other in others), "all ranks know how it ended"
    return {n: ended[0].result() for n, ended in ends.items()}


def tensors(result: TrainResult) -> dict[str, np.ndarray]:
    path = checkpoint_path(result.run / "checkpoints", "last")
    return {name: value.numpy() for name, value in load_checkpoint(path).model.items()}


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_train_what_one_process_trains(world_size, whole):
    ours, alone = whole[world_size], whole[1]
    for name, value in tensors(alone).items():
        np.testing.assert_allclose(tensors(ours)[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert (ours.steps, ours.stopped, ours.best_epoch) == (
        alone.steps,
        alone.stopped,
        alone.best_epoch,
    )
    assert_close(told(ours.run), told(alone.run))


def test_ranks_add_the_l2_term_once(planted_shards, tmp_path, whole):
    how = OptimiserConfig(l2=0.05)
    alone, ours = (
        trained_by(n, short(planted_shards, tmp_path / str(n), epochs=1, optimiser=how))[0].result()
        for n in (1, 2)
    )
    for name, value in tensors(alone).items():
        np.testing.assert_allclose(tensors(ours)[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert_close(told(ours.run), told(alone.run))
    assert told(alone.run)[0]["loss"] != told(whole[1].run)[0]["loss"]


def assert_close(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """The same lines, floats to 1e-5."""
    for mine, line in zip(ours, theirs, strict=True):
        floats = {name for name, value in line.items() if isinstance(value, float)}
        assert [mine[name] for name in floats] == pytest.approx(
            [line[name] for name in floats], rel=1e-5
        )
        assert {**mine, **{name: line[name] for name in floats}} == line


def gradients_of(shards: Path, place: Place) -> list[np.ndarray]:
    """Mean gradients of each step of an epoch, weights changing from step to step."""
    torch.manual_seed(0)
    model = ScoreModel(HeadConfig(), DIM)
    loss_of = make_loss(LossConfig("bce"), EpochRows(1, 1, 1, 0.5))
    found = []
    with (
        Ranks(place) as ranks,
        FrameStream(
            shards,
            "train",
            global_batch=96,
            lanes=12,
            rank=place.rank,
            world_size=place.world_size,
        ) as stream,
    ):
        gradients = Gradients(model.parameters(), ranks)
        for step, batch in enumerate(stream, 1):
            loss = loss_of(
                model(batch.x),
                batch.y,
                batch.weight,
                num_real=batch.num_real,
                world_size=place.world_size,
            )
            mean = gradients.of(loss, step)
            grads = [item.grad for item in model.parameters()]
            assert all(grad is not None for grad in grads)
            found.append(torch.cat([*(g.reshape(-1) for g in grads if g is not None), mean[None]]))
            torch.manual_seed(step)
            with torch.no_grad():
                model.head.first.weight.normal_(std=1e-2)
    return [item.numpy() for item in found]


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_gradients_of_any_number_of_ranks_are_those_of_one_process(world_size, planted_shards):
    expected = gradients_of(planted_shards, Place())
    ended = on_ranks(world_size, lambda place: gradients_of(planted_shards, place))
    for end in ended:
        for ours, alone in zip(end.result(), expected, strict=True):
            assert np.abs(ours - alone).max() <= 1e-5 * np.abs(alone).max()
        for ours, first in zip(end.result(), ended[0].result(), strict=True):
            assert np.array_equal(ours, first), "the same bits on all ranks"


@pytest.mark.parametrize("world_size", [2, 3])
def test_scores_of_ranks_are_those_of_one_process_bit_for_bit(world_size, planted_shards):
    index = read_index(planted_shards)
    selection = select(index, "validation", LabelSpec())
    torch.manual_seed(0)
    model = ScoreModel(HeadConfig(), DIM)
    torch.nn.init.normal_(model.head.first.weight, std=1e-3)

    def scores(place: Place) -> np.ndarray:
        with Ranks(place) as ranks, FrameSource(index, "validation") as source:
            return score_rows(model, selection, source, ranks=ranks)

    expected = scores(Place())
    assert len(np.unique(expected)) > 1000
    for end in on_ranks(world_size, scores):
        assert np.array_equal(end.result(), expected)


def test_what_is_said_among_ranks_comes_as_it_was_said():
    def talk(place: Place) -> None:
        with Ranks(place) as ranks:
            assert ranks.share(lambda: b"from the first", "a test") == b"from the first"
            assert ranks.share(lambda: b"", "a test") == b""
            assert ranks.decide(lambda: {"best": [1, None]}, "a test") == {"best": [1, None]}
            assert ranks.first(lambda: "made", "a test") == ("made" if place.rank == 0 else None)
            mine = b"x" * place.rank * 1000
            assert ranks.gather(mine, "a test") == [b"x" * rank * 1000 for rank in range(3)]
            assert ranks.num_with(f"gpu {place.rank // 2}", "a test") == [2, 2, 1][place.rank]
            rows = np.full(2 * place.rank, place.rank, np.float32)
            gathered = ranks.gather_rows(rows, [0, 2, 4], "a test")
            assert gathered.tolist() == [1, 1, 2, 2, 2, 2]

            def fail() -> bytes:
                raise ConfigError("wrong on the first")

            with pytest.raises(ConfigError, match="wrong on the first"):
                ranks.share(fail, "a test")
            assert [list(ranks.part(7, rank)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5, 6]]

    for end in on_ranks(3, talk):
        end.result()


def test_ranks_at_different_steps_are_told_apart():
    def drift(place: Place) -> None:
        with Ranks(place) as ranks:
            ranks.sum_step(torch.zeros(4 + TOLD), 7)
            ranks.sum_step(torch.zeros(4 + TOLD), 8 + place.rank)

    for end in on_ranks(2, drift):
        assert isinstance(end.error, RankLost)
        assert f"rank {on_rank(end)} is at step" in str(end.error)


def test_thousands_of_ranks_at_one_step_are_not_told_apart(monkeypatch):
    world_size = 4096

    def all_reduce(values: torch.Tensor, *, async_op: bool) -> Made:
        """As gloo adds them: float32, one rank behind the other."""
        values.copy_(torch.from_numpy(np.cumsum([values.numpy()] * world_size, axis=0)[-1]))
        return Made()

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    ranks = Ranks(Place(world_size=world_size))
    for step in (4095, 65535, 123_456_789):
        values = torch.ones(1 + TOLD)
        ranks.sum_step(values, step)
        assert values[0] == world_size


class Made:
    """A sum that is made already."""

    def wait(self) -> None: ...


def on_rank(end: Ended) -> str:
    return str(end.error).split()[1]


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_on_one_rank_stops_all_at_the_same_step_and_all_go_on(
    number, kind, planted_shards, tmp_path, whole
):
    step = STEPS_AN_EPOCH + 3
    config = short(planted_shards, tmp_path / "run")

    def work(place: Place) -> TrainResult:
        press = Press(step, number=number) if place.rank == 1 else None
        return train(config, place=place, progress=press)

    ended = on_ranks(2, work)
    assert [type(end.error) for end in ended] == [kind, kind]
    if kind is SystemExit:
        assert {end.error.code for end in ended} == {143}  # pyright: ignore
    state = load_checkpoint(checkpoint_path(config.out / "checkpoints", "last")).state
    # The progress is told of a step when it is done, and the next sum tells the others.
    assert state["step"] == step + 1
    ended = trained_by(2, config, resume=True)
    assert_same(ended[0].result(), whole[2])


def test_a_signal_while_validating_stops_all(planted_shards, tmp_path, whole):
    config = short(planted_shards, tmp_path / "run")

    def work(place: Place) -> TrainResult:
        press = Press(1, phase="validate") if place.rank == 1 else None
        return train(config, place=place, progress=press)

    assert [type(end.error) for end in on_ranks(2, work)] == [KeyboardInterrupt] * 2
    state = load_checkpoint(checkpoint_path(config.out / "checkpoints", "last")).state
    assert (state["step"], state["validated"]) == (2 * STEPS_AN_EPOCH, False)
    assert_same(trained_by(2, config, resume=True)[0].result(), whole[2])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_others_and_the_next_attempt_ends_as_if_nobody_had_died(
    victim, planted_shards, tmp_path, whole
):
    config = short(planted_shards, tmp_path / "run")

    def work(place: Place) -> TrainResult:
        press = Press(13, number=signal.SIGKILL) if place.rank == victim else None
        return train(config, place=place, progress=press, save_every_s=0.01)

    ended = on_ranks(2, work)
    assert ended[victim].was_killed
    error = ended[1 - victim].error
    assert isinstance(error, RankLost)
    assert f"rank {victim} of 2 did not come to step 14" in str(error)
    state = load_checkpoint(checkpoint_path(config.out / "checkpoints", "last")).state
    assert 0 < state["step"] <= 13
    ended = on_ranks(2, lambda place: train(config, place=place, resume=True))
    assert_same(ended[0].result(), whole[2])


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_others_in_time_and_is_named(planted_shards, tmp_path):
    config = short(planted_shards, tmp_path / "run")

    def hang(report: Progress) -> None:
        if report.phase == "train" and report.epoch == 0 and report.done == 4:
            time.sleep(60)

    def work(place: Place) -> TrainResult:
        return train(config, place=place, progress=hang if place.rank == 2 else None)

    began_s = time.monotonic()
    ended = on_ranks(4, work, wait_s=2, kill_stuck=True)
    assert time.monotonic() - began_s < 2 + 5
    for rank in (0, 1, 3):
        said = str(ended[rank].error)
        assert "rank 2 of 4 did not come to step 5: " in said
        assert "--rank-timeout-s" in said
    state = load_checkpoint(checkpoint_path(config.out / "checkpoints", "last")).state
    assert state["step"] == 4, "what was learned is saved"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_rank_that_waits_for_one_that_hangs(number, planted_shards, tmp_path):
    config = short(planted_shards, tmp_path / "run")
    began, ended = tmp_path / "began", tmp_path / "ended"

    def hang(report: Progress) -> None:
        if report.phase == "train" and report.epoch == 0 and report.done == 4:
            began.touch()
            time.sleep(60)

    def press() -> None:
        while not began.exists():
            time.sleep(0.01)
        time.sleep(0.5)  # the other one waits by then
        os.kill(os.getpid(), number)

    def work(place: Place) -> TrainResult:
        if place.rank == 1:
            return train(config, place=place, progress=hang)
        child = os.fork()  # so that this test sees the exit code
        if not child:
            threading.Thread(target=press, daemon=True).start()
            train(config, place=place)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ended.write_text(str(os.waitstatus_to_exitcode(status)))
        raise RankLost("the child has ended")

    on_ranks(2, work, wait_s=60, kill_stuck=True)
    assert ended.read_text() == str(128 + number)
    assert ended.stat().st_mtime - began.stat().st_mtime < 2 * HANGING_S
    assert trained_by(2, config, resume=True)[0].result().stopped


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_tells_its_own_error_at_once_and_the_others_who_is_missing(
    failing, planted_shards, tmp_path
):
    config = short(planted_shards, tmp_path / "run")

    def fail(report: Progress) -> None:
        if report.phase == "train" and report.done == 4:
            raise CorruptData("a block of one rank")

    def work(place: Place) -> TrainResult:
        return train(config, place=place, progress=fail if place.rank == failing else None)

    began_s = time.monotonic()
    ended = on_ranks(2, work, wait_s=60)
    assert time.monotonic() - began_s < 15, "nobody waits for the time to be up"
    assert str(ended[failing].error) == "a block of one rank"
    assert f"rank {failing} of 2 did not come to step 5: " in str(ended[1 - failing].error)


@pytest.mark.slow
def test_a_rank_that_never_starts_is_named():
    def work(place: Place) -> None:
        if place.rank == 1:
            time.sleep(30)
        with Ranks(place):
            pass

    ended = on_ranks(2, work, wait_s=2, kill_stuck=True)
    assert "rank 1 of 2 did not come to the start" in str(ended[0].error)


def test_a_place_that_cannot_be_kept_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        place = Place(world_size=2, port=port, keeps_store=True, timeout_s=5)
        with pytest.raises(RankLost, match=rf"where the ranks meet, 127.0.0.1 port {port} \(.*use"):
            Ranks(place).__enter__()


def test_nobody_meets_the_dead():
    """A store that outlives attempts, of which no rank knows the number."""
    store = torch.distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]

    def attempt(world_size: int, *, late: int) -> str:
        with ThreadPoolExecutor(world_size) as pool:
            ranks = [rank for rank in range(world_size) if rank != late]
            early = [pool.submit(meet, store, rank, world_size, timeout_s=10) for rank in ranks]
            time.sleep(0.1)
            assert not any(one.done() for one in early)
            names = {meet(store, late, world_size, timeout_s=10)}
            names |= {one.result() for one in early}
        (name,) = names
        return name

    numbers = [(2, 1), (2, 0), (2, 1), (3, 0), (2, 0)]
    assert len({attempt(world_size, late=late) for world_size, late in numbers}) == len(numbers)
    for rank in range(2):  # everyone else has been here, and is dead
        with pytest.raises(NotMetError) as error:
            meet(store, rank, 2, timeout_s=0.1)
        assert error.value.ranks == [1 - rank]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(before, after, planted_shards, tmp_path, whole):
    """The same rows in the same steps; sums over ranks are rounded otherwise."""
    config = short(planted_shards, tmp_path / "run")

    def work(place: Place) -> TrainResult:
        press = Press(13) if place.rank == 0 else None
        return train(config, place=place, progress=press)

    assert {type(end.error) for end in on_ranks(before, work)} == {KeyboardInterrupt}
    result = trained_by(after, config, resume=True)[0].result()
    for name, value in tensors(whole[1]).items():
        np.testing.assert_allclose(tensors(result)[name], value, rtol=1e-4, atol=1e-6)
    assert_close(told(result.run), told(whole[1].run))


def test_only_the_first_rank_needs_the_run_s_folder(planted_shards, tmp_path, whole):
    config = short(planted_shards, tmp_path / "run")

    def work(place: Place) -> TrainResult:
        nowhere = replace(config, out=tmp_path / "nowhere/run")
        press = Press(5) if place.rank == 0 else None
        return train(nowhere if place.rank else config, place=place, progress=press)

    assert {type(end.error) for end in on_ranks(2, work)} == {KeyboardInterrupt}
    assert not (tmp_path / "nowhere").exists()

    def on(place: Place) -> TrainResult:
        nowhere = replace(config, out=tmp_path / "nowhere/run")
        return train(nowhere if place.rank else config, place=place, resume=True)

    assert_same(on_ranks(2, on)[0].result(), whole[2])
    assert not (tmp_path / "nowhere").exists()


def test_what_the_first_rank_refuses_is_refused_on_all(planted_shards, tmp_path):
    (tmp_path / "run").mkdir()
    for end in trained_by(2, short(planted_shards, tmp_path / "run")):
        assert isinstance(end.error, ConfigError)
        assert "run exists" in str(end.error)
    for end in trained_by(3, short(planted_shards, tmp_path / "other")):
        assert "lanes is 16, which 3 ranks cannot share" in str(end.error)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.01}, "ranks 0 and 1 differ in lr, and"),
        ({"seed": 1}, "ranks 0 and 1 differ in seed, training rows, and"),
        ({"device": "meta"}, "ranks 0 and 1 differ in device, and"),
        (
            {"filter": FrameFilter(exclude="train-part-0*")},
            "ranks 0 and 1 differ in filter.exclude",
        ),
    ],
)
def test_ranks_of_different_commands_are_refused(changes, said, own_shards, tmp_path):
    """Before the statistics, of which ranks with other recordings would expect others."""
    config = short(own_shards, tmp_path / "run")

    def work(place: Place) -> TrainResult:
        return train(replace(config, **changes) if place.rank else config, place=place)

    for end in on_ranks(2, work):
        assert isinstance(end.error, ConfigError)
        assert said in str(end.error)
    assert not config.out.exists()
    assert not (own_shards.parent / "stats").exists()


def test_ranks_with_other_annotations_are_refused(planted_shards, own_shards, tmp_path):
    """Each host may have a copy of the store, and one of them another generation."""
    name = "validation, part 0"
    annotations = replace(open_store(own_shards.parent).annotations(name), events=(laugh(3, 4),))
    commit_annotations(own_shards.parent, {recording_id(name): annotations})

    def work(place: Place) -> TrainResult:
        shards = own_shards if place.rank else planted_shards
        return train(short(shards, tmp_path / "run"), place=place)

    for end in on_ranks(2, work):
        assert "ranks 0 and 1 differ in validation targets, and" in str(end.error)


def test_features_that_are_not_finite_are_named_on_all_ranks(own_shards, tmp_path):
    """One rank alone has read them; the loss is spoilt for all."""
    index = read_index(own_shards)
    shard = index.split_shards("train")[4]
    config = short(own_shards, tmp_path / "run", verify="never", balance="off", epochs=1)
    assert [type(end.error) for end in trained_by(2, config)] == [type(None)] * 2
    (own_shards / shard.name).chmod(0o644)
    with (own_shards / shard.name).open("r+b") as file:
        file.seek(index.geometry.data_offset(1))
        file.write(b"\x80\x7f")
    ended = trained_by(2, replace(config, out=tmp_path / "again"))
    assert {type(end.error) for end in ended} == {CorruptData}
    assert len({str(end.error) for end in ended}) == 1
    assert shard.stream.recording_id in str(ended[0].error)


def test_statistics_are_shared_and_kept_by_the_first_rank(own_shards, tmp_path, whole):
    reports = tmp_path / "reports"
    reports.mkdir()

    def work(place: Place) -> TrainResult:
        def note(report: Progress) -> None:
            if report.phase == "statistics":
                (reports / f"{place.rank}").write_text(f"{report.done} of {report.total}")

        return train(short(own_shards, tmp_path / "run"), place=place, progress=note)

    assert_same(on_ranks(4, work)[0].result(), whole[4])
    counts = [path.read_text().split() for path in sorted(reports.iterdir())]
    assert [done == total for done, _, total in counts] == [True] * 4
    index = read_index(own_shards)
    streams = sum(len(item.streams) for item in index.recordings if item.split == "train")
    assert sum(int(done) for done, _, _ in counts) == streams
    kept = KeptMoments(index).read(index.streams("train"))
    assert len(kept) == streams


def test_nothing_is_said_on_stdout(capfd):
    for end in on_ranks(2, lambda place: Ranks(place).__enter__().agree("a test")):
        end.result()
    assert capfd.readouterr().out == ""


def test_the_next_batch_is_made_while_others_are_waited_for():
    def work(place: Place) -> float:
        with Ranks(place) as ranks:
            values = torch.ones(1 + TOLD)
            with ranks.made_meanwhile(time.monotonic() for _ in range(9)) as made:
                time.sleep(0.3 * place.rank)
                ranks.sum_step(values, 1)
                waited_s = time.monotonic() - next(made)
            assert values[0] == 2
            return waited_s

    waited, _ = (end.result() for end in on_ranks(2, work))
    assert waited > 0.2


def test_what_is_made_ahead_comes_in_its_place():
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise CorruptData("the third")

    ahead = OneAhead(items())
    for number in (1, 2):
        assert next(ahead) == number
        for _ in range(2):
            ahead.make()
    with pytest.raises(CorruptData, match="the third"):
        next(ahead)
    ended = OneAhead(iter(()))
    ended.make()
    assert list(ended) == []


def test_a_group_of_the_caller_s_own_is_left_to_the_caller():
    distributed: Any = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with Ranks():
            pass
        assert distributed.is_initialized()
        with pytest.raises(ConfigError, match=r"in a group of .* already"):
            Ranks(Place(world_size=2)).__enter__()
    finally:
        distributed.destroy_process_group()


def test_alone_nothing_is_joined():
    with Ranks() as ranks:
        values = torch.ones(2 + TOLD)
        ranks.sum_step(values, 1)
        assert values.tolist() == [1.0] * (2 + TOLD)
        ranks.agree("a test")
    assert not torch.distributed.is_initialized()
    with pytest.raises(LaughstoreError, match="rank is 2"):
        Place(rank=2, world_size=2)
