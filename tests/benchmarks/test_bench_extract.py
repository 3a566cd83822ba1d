"""What the benchmark of extraction counts, and its GPU part on a small model."""

import json
from pathlib import Path

import pytest
import torch
from moshi.models import loaders
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_extract import cpu_work, gpu_work, measure_work, settings_of
from benchmarks.extraction import Work, bare_calls, lm_alone, record_calls
from benchmarks.random_models import LmShape
from benchmarks.table import tables
from extract.model import meta_lm


def small_configs(checkpoint: Path) -> tuple[dict, dict]:
    lm = json.loads((checkpoint / "config.json").read_text())
    mimi = json.loads((checkpoint / "mimi_config.json").read_text())
    names = ("model_type", "moshi_name", "mimi_name", "mimi_config_name", "tokenizer_name")
    return {key: value for key, value in lm.items() if key not in names}, mimi


def small_gpu_work(checkpoint: Path) -> Work:
    lm_config, mimi_config = small_configs(checkpoint)
    return gpu_work(
        torch.device("cpu"),
        lm_config=lm_config,
        mimi_config=mimi_config,
        chunk_frames=8,
        num_calls=2,
    )


def test_operations_of_moshi_are_two_for_each_weight_and_four_channels_a_key():
    shape = LmShape.of(loaders._lm_kwargs)
    lm = meta_lm(loaders._lm_kwargs, torch.bfloat16, dep_q=0, depformer_weights_per_step=False)
    linears = [part for part in lm.transformer.modules() if isinstance(part, nn.Linear)]
    num_weights = sum(linear.weight.numel() for linear in linears)
    assert num_weights == 32 * sum(inputs * outputs for inputs, outputs in shape.matrices)
    assert shape.flops_per_frame(1) == 2 * num_weights + 32 * 4 * 4096
    far = shape.flops_per_frame(10_000_000)
    assert far == pytest.approx(2 * num_weights + 32 * 4 * 4096 * 3000, rel=1e-4)
    assert 14.6e9 < far < 14.8e9


@pytest.mark.parametrize("num_frames", [1, 5, 64, 65, 300])
def test_keys_are_those_that_a_frame_sees(num_frames):
    shape = LmShape(dim=8, num_layers=3, hidden=24, kv_repeat=2, window=64)
    matrices = 2 * (8 * 16 + 8 * 8 + 8 * 48 + 24 * 8)
    keys = sum(min(frame + 1, 64) for frame in range(num_frames)) / num_frames
    assert shape.flops_per_frame(num_frames) == pytest.approx(3 * (matrices + 4 * 8 * keys))


@pytest.mark.slow
def test_matrices_of_a_small_model_are_what_torch_counts(nano_checkpoint):
    work = small_gpu_work(nano_checkpoint)
    codes = torch.zeros(2, 17, 5, dtype=torch.long)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        work.model.lm.forward_text(codes)
    counted = sum(
        flops
        for operation, flops in counter.get_flop_counts()["Global"].items()
        if "attention" not in str(operation) and "bmm" not in str(operation)
    )
    assert counted == 10 * work.shape.num_layers * 2 * sum(a * b for a, b in work.shape.matrices)


def test_contestants_make_the_calls_of_a_build_in_full_shape(nano_checkpoint, tmp_path):
    work = small_gpu_work(nano_checkpoint)
    calls = record_calls(work, work.corpus(tmp_path / "wav", 24_000, "wav"))
    # Two recordings one behind the other in each of four slots, two calls each.
    assert len(calls) == 4
    assert [call.restarts.tolist() for call in calls] == [[True] * 4, [False] * 4] * 2
    shapes = []
    lm = work.model.lm
    hook = lm.transformer.register_forward_pre_hook(
        lambda _, inputs: shapes.append(tuple(inputs[0].shape))
    )
    assert lm_alone(work, calls)() == work.flops
    assert bare_calls(work, calls)() == work.flops
    hook.remove()
    assert shapes == [(8, 8, work.model.dim)] * 8
    assert work.num_tokens == 64


@pytest.mark.slow
def test_the_gpu_part_runs_on_a_small_model_and_fits_the_table(nano_checkpoint, tmp_path):
    work = small_gpu_work(nano_checkpoint)
    results = measure_work(work, tmp_path / "work", 5, with_tf32=True, square=(64, 2))
    assert not (tmp_path / "work").exists()
    assert {result.group for result in results} == {work.group}
    names = {result.name for result in results}
    assert {"LM alone", "Mimi alone", "Mimi alone, --allow-tf32"} <= names
    for kind in ("wav at 24 kHz", "flac at 44.1 kHz", "wav at 24 kHz, --allow-tf32"):
        assert {f"build, {kind}", f"build, {kind}, of LM alone"} <= names
    for result in results:
        assert 0 < result.low <= result.median <= result.high
    frames = {item.name: item.median for item in results if item.unit == "row-frames/s"}
    assert frames["build, wav at 24 kHz"] < frames["LM alone"]
    hours = next(item.median for item in results if item.unit == "h of audio/h")
    assert hours == pytest.approx(frames["build, wav at 24 kHz"] / 2 / 12.5, rel=1e-3)
    report = {
        "name": "extract_gpu",
        "machine": {
            "cpu": "a CPU",
            "cores": 2,
            "memory_gib": 8,
            "kernel": "a kernel",
            "virtual": False,
        },
        "versions": dict.fromkeys(["python", "numpy", "torch", "zarr", "webdataset"], "1"),
        "settings": {"gpu": "a GPU", "frames": 1, "dim": 64, **settings_of([work])},
        "cache": "warm",
        "repeats": 5,
        "others_busy_cores": 0.0,
        "results": [result.to_json() for result in results],
    }
    text = tables([report])
    assert f"| {work.group} | part | cores |" in text
    assert " of LM alone | " in text
    assert "a GPU, a CPU, 2 cores" in text


def test_the_numerics_are_those_of_a_build(tmp_path):
    work = cpu_work(tmp_path, "nano", quick=True)
    assert (work.numerics.slots, work.numerics.threads) == (1, 1)
    assert work.num_row_frames == 2 * 2 * work.num_frames
    assert work.num_frames % work.numerics.chunk_frames
