"""Extracting features: the language model, both networks, and whole builds, as parts of each other.

    uv run python -m benchmarks.bench_extract [--device auto|cpu|cuda] [--repeats 5] [--quick]

CPU: two small random checkpoints. GPU: Moshi 7B and Mimi in full size, random weights. A build is
files of sound in, a committed store out, its model loaded before; it is verified off the clock.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from moshi.models import loaders

from extract.config import DEFAULT_CHUNK_FRAMES, DEFAULT_ROWS, ROWS_PER_RECORDING
from extract.model import load_model, resolve_model
from extract.synthetic.tiny_checkpoint import Size, write_tiny_checkpoint
from laughstore.spec import Numerics
from laughstore.timebase import FRAMES_PER_SECOND

from .build_peaks import BuildPeaks
from .extraction import (
    Build,
    Work,
    bare_calls,
    layer_products,
    lm_alone,
    matrix_products,
    mimi_alone,
    record_calls,
)
from .measure import Contestant, Result, Unit, measure, summary
from .random_models import Config, LmShape, random_model
from .report import Options, Report, parse_options, working_folder

CPU, GPU = "extract", "extract_gpu"
"""Names of the reports; the second may come from another machine."""
_TFLOPS = (Unit("TFLOP/s", 1e-12),)
_RANDOM = "its numbers are random, and nobody keeps what comes out"
_CALLS_OF_A_BUILD = "its calls are those of a build, which is verified; nobody keeps what comes out"
_MARGIN_FRAMES = 3
"""By which a recording is shorter than whole calls: its end is ragged."""
_CPU_CALLS: dict[Size, int] = {"nano": 30, "wide": 4}
"""Calls a recording; the model takes about three seconds for two recordings, so that what a build
does once (the plan, the last recording's way to the disk, the commit) weighs a few per cent."""
_GPU_CALLS, _GPU_RECORDINGS_PER_SLOT = 50, 2
_SQUARE = {"cpu": (1024, 16), "cuda": (8192, 300)}
"""Size of the matrices, and products in a run."""
_LAYERS = {"cpu": 2, "cuda": 300}
"""Times that the products of one layer and call are made in a run."""


@dataclass
class _Timed:
    """Remembers the rate of every run, for ratios of any two contestants in the same round."""

    run: Callable[[], float]
    rates: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        began = time.perf_counter()
        amount = self.run()
        self.rates.append(amount / (time.perf_counter() - began))
        return amount


@dataclass(frozen=True)
class _Rates:
    """Units of a work: all of them from operations of the language model per second."""

    work: Work

    @property
    def frames(self) -> Unit:
        """Of the language model's rows."""
        return Unit("row-frames/s", 1 / self.work.flops_per_frame)

    @property
    def hours(self) -> Unit:
        """Of recordings, whose frames are two rows each."""
        rows_per_s = self.frames.scale / ROWS_PER_RECORDING / FRAMES_PER_SECOND
        return Unit("h of audio/h", rows_per_s)

    @property
    def written(self) -> Unit:
        """What reaches the disk."""
        return Unit("MB/s written", self.work.shard_bytes / self.work.flops / 1e6)


def measure_work(
    work: Work, folder: Path, repeats: int, *, with_tf32: bool = False, square: tuple[int, int]
) -> list[Result]:
    """Measure everything of one model.

    Args:
        work: model, calls and recordings.
        folder: for sound and stores; 2 to 4 times `work.shard_bytes` are written there.
        repeats: rounds that count.
        with_tf32: build also with the numerics of `--allow-tf32`.
        square: size of the matrices of the limit, and products in a run.
    """
    wav = work.corpus(folder / "wav", 24_000, "wav")
    flac = work.corpus(folder / "flac", 44_100, "flac")
    work.prepare()
    calls = record_calls(work, wav)
    rates = _Rates(work)
    memory = BuildPeaks(work.device, sum(call.audio.nbytes for call in calls))

    def contestant(
        name: str,
        run: Callable[[], float],
        units: Sequence[Unit],
        limit: Contestant | None = None,
        *,
        unchecked: str,
        allow_tf32: bool = False,
    ) -> Contestant:
        return Contestant(
            name,
            _Timed(run),
            units,
            work.group,
            limit,
            before=lambda: work.prepare(allow_tf32=allow_tf32),
            unchecked=unchecked,
        )

    products = contestant(
        f"limit: matrix product, {square[0]} square",
        matrix_products(work, *square),
        _TFLOPS,
        unchecked=_RANDOM,
    )
    layers = contestant(
        "matrix products of one layer",
        layer_products(work, _LAYERS[work.device.type]),
        _TFLOPS,
        products,
        unchecked=_RANDOM,
    )
    lm = contestant(
        "LM alone",
        lm_alone(work, calls),
        [*_TFLOPS, rates.frames],
        products,
        unchecked=_RANDOM,
    )
    mimis = [
        contestant(
            f"Mimi alone{_flag(tf32)}",
            mimi_alone(work, calls),
            [rates.frames],
            unchecked=_CALLS_OF_A_BUILD,
            allow_tf32=tf32,
        )
        for tf32 in ((False, True) if with_tf32 else (False,))
    ]
    bare = contestant(
        "both networks, the same calls",
        bare_calls(work, calls),
        [rates.frames],
        lm,
        unchecked=_CALLS_OF_A_BUILD,
    )
    kinds = [(wav, False), (flac, False), *([(wav, True)] if with_tf32 else [])]
    units = [rates.frames, rates.hours, rates.written]
    builds = [
        _build(
            f"build, {corpus.kind}{_flag(tf32)}",
            Build(work, corpus, folder / "store", tf32),
            units,
            bare,
            memory if number == 0 else None,
        )
        for number, (corpus, tf32) in enumerate(kinds)
    ]
    contestants = [products, layers, lm, *mimis, bare, *builds]
    results = measure(contestants, repeats=repeats, say=print)
    shutil.rmtree(folder)
    results += [_part(build, lm, repeats) for build in builds]
    resident, on_device = "build: peak resident memory", "build: peak GPU memory"
    results.append(_summary(work, resident, "MB", memory.resident_mb, repeats))
    if memory.device_gb:
        results.append(_summary(work, on_device, "GB", memory.device_gb, repeats))
    return results


def _flag(allow_tf32: bool) -> str:
    return ", --allow-tf32" if allow_tf32 else ""


def _build(
    name: str, build: Build, units: Sequence[Unit], limit: Contestant, memory: BuildPeaks | None
) -> Contestant:
    def before() -> None:
        build.before()
        build.work.prepare(allow_tf32=build.allow_tf32)
        if memory is not None:
            memory.begin()

    def check() -> None:
        if memory is not None:
            memory.note()
        build.check()

    run = _Timed(build.run)
    return Contestant(name, run, units, build.work.group, limit, before=before, check=check)


def _part(mine: Contestant, theirs: Contestant, repeats: int) -> Result:
    """Return one's rate as a part of the other's in the same round."""
    assert isinstance(mine.run, _Timed)
    assert isinstance(theirs.run, _Timed)
    rounds = zip(mine.run.rates[-repeats:], theirs.run.rates[-repeats:], strict=True)
    values = [ours / other for ours, other in rounds]
    return replace(summary(f"{mine.name}, of {theirs.name}", "of it", values), group=mine.group)


def _summary(work: Work, name: str, unit: str, values: list[float], repeats: int) -> Result:
    return replace(summary(name, unit, values[-repeats:]), group=work.group)


def cpu_work(folder: Path, size: Size, *, quick: bool) -> Work:
    """Return the work of a small checkpoint, with the numerics of a build."""
    files = resolve_model(str(write_tiny_checkpoint(folder / size, size=size)))
    model = load_model(files, device="cpu", dtype=torch.float32)
    chunk_frames = 16 if quick else DEFAULT_CHUNK_FRAMES["cpu"]
    num_calls = 2 if quick else _CPU_CALLS[size]
    return Work(
        group=f"CPU, {size} ({model.dim} channels)",
        model=model,
        shape=LmShape.of(files.config),
        numerics=Numerics(
            slots=DEFAULT_ROWS["cpu"] // ROWS_PER_RECORDING,
            chunk_frames=chunk_frames,
            threads=1,
            compute_dtype="float32",
            allow_tf32=False,
        ),
        num_recordings=2,
        num_frames=num_calls * chunk_frames - _MARGIN_FRAMES,
    )


def gpu_work(
    device: torch.device,
    *,
    lm_config: Config = loaders._lm_kwargs,
    mimi_config: Config = loaders._mimi_config,
    chunk_frames: int = DEFAULT_CHUNK_FRAMES["cuda"],
    num_calls: int = _GPU_CALLS,
) -> Work:
    """Return the work of Moshi and Mimi with random weights, with the numerics of a build.

    Args:
        device: that computes.
        lm_config: of the language model; Moshi 7B.
        mimi_config: the released one.
        chunk_frames: of a call.
        num_calls: of a recording.
    """
    slots = DEFAULT_ROWS["cuda"] // ROWS_PER_RECORDING
    model = random_model(lm_config, mimi_config, device=device, dtype=torch.bfloat16)
    num_parameters = sum(weight.numel() for weight in model.lm.parameters())
    return Work(
        group=f"GPU, {num_parameters / 1e9:.2g} B parameters",
        model=model,
        shape=LmShape.of(lm_config),
        numerics=Numerics(
            slots=slots,
            chunk_frames=chunk_frames,
            threads=1,
            compute_dtype="bfloat16",
            allow_tf32=False,
        ),
        num_recordings=_GPU_RECORDINGS_PER_SLOT * slots,
        num_frames=num_calls * chunk_frames - _MARGIN_FRAMES,
    )


def settings_of(works: Sequence[Work]) -> dict[str, object]:
    """Return what was measured, for the report."""
    return {
        "gb": sum(work.shard_bytes for work in works) / 1e9,
        "works": {
            work.group: {
                "dim": work.shape.dim,
                "num_layers": work.shape.num_layers,
                "window": work.shape.window,
                "dtype": work.numerics.compute_dtype,
                "rows": ROWS_PER_RECORDING * work.numerics.slots,
                "chunk_frames": work.numerics.chunk_frames,
                "threads": work.numerics.threads,
                "num_recordings": work.num_recordings,
                "seconds_each": round(work.num_frames / FRAMES_PER_SECOND, 1),
                "shard_bytes": work.shard_bytes,
                "lm_gflop_per_row_frame": round(work.flops_per_frame / 1e9, 6),
            }
            for work in works
        },
    }


def _measure_cpu(options: Options) -> None:
    report = Report.begin(CPU, options)
    results: list[Result] = []
    works: list[Work] = []
    with working_folder(options) as folder:
        for size in _CPU_CALLS:
            work = cpu_work(folder, size, quick=options.quick)
            works.append(work)
            square = (256, 4) if options.quick else _SQUARE["cpu"]
            results += measure_work(work, folder / "work", options.repeats, square=square)
            shutil.rmtree(folder / size)
    report.finish(settings_of(works), results)


def _measure_gpu(options: Options) -> None:
    report = Report.begin(GPU, options)
    device = torch.device("cuda")
    work = gpu_work(device, num_calls=2 if options.quick else _GPU_CALLS)
    with working_folder(options) as folder:
        results = measure_work(
            work, folder / "work", options.repeats, with_tf32=True, square=_SQUARE["cuda"]
        )
    gpu = {"gpu": torch.cuda.get_device_name(device)}
    report.finish(gpu | settings_of([work]), results)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/extract.json and, on a GPU, extract_gpu.json."""
    options = parse_options("Extracting features.", argv)
    if options.device != "cuda":
        _measure_cpu(options)
    if options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available()):
        _measure_gpu(options)


if __name__ == "__main__":
    main()
