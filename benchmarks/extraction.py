"""What `bench_extract` runs: sound in files, the calls of one extraction, whole builds.

A row-frame is one frame of one assignment, a row of the language model. Everything here counts what
it did in floating-point operations of the language model on the row-frames that are wanted, so that
the rates of matrix products, of the model alone and of a whole build are parts of each other.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import torch
from moshi.utils.compile import no_compile, no_cuda_graph
from torch import nn

from extract.batch import SIDES, SlotBatch
from extract.config import BuildConfig
from extract.extraction import Extraction
from extract.feeding import Call, Feeder, Source
from extract.model import NUM_STREAMS, FeatureModel
from extract.run import plan_of
from extract.streaming import exact_streaming, restart_rows
from extract.survey import survey
from extract.text import PADDING_ID
from laughstore.buildplan import begin_plan
from laughstore.geometry import ShardGeometry
from laughstore.integrity.verify import verify
from laughstore.locks import StoreLocks
from laughstore.progress import NoProgress
from laughstore.sharing import build_together
from laughstore.spec import FeatureSpec, Numerics
from laughstore.timebase import FRAMES_PER_SECOND, SAMPLE_RATE, SAMPLES_PER_FRAME

from .random_models import LmShape

SPEAKERS = ("a", "b")
_BLOCK_SECONDS = 10
"""Of sound, repeated: what it says changes no speed."""


@dataclass(frozen=True)
class Corpus:
    """Recordings of two speakers in files of one kind, described by a manifest."""

    kind: str
    manifest: Path


def write_corpus(
    folder: Path, *, num_recordings: int, num_frames: int, sample_rate: int, suffix: str
) -> Corpus:
    """Write two tracks of `num_frames` frames, and a manifest of recordings that all have them."""
    folder.mkdir(parents=True)
    num_samples = num_frames * SAMPLES_PER_FRAME * sample_rate // SAMPLE_RATE
    for seed, speaker in enumerate(SPEAKERS):
        block = _sound(seed, sample_rate)
        path = folder / f"{speaker}.{suffix}"
        with soundfile.SoundFile(path, "w", sample_rate, 1, "PCM_16") as file:
            for start in range(0, num_samples, len(block)):
                file.write(block[: num_samples - start])
    seconds = num_frames / FRAMES_PER_SECOND
    speakers = [
        {"name": name, "audio": {"path": f"{name}.{suffix}"}, "total_s": seconds / 2}
        for name in SPEAKERS
    ]
    laughs = [
        {"start_s": at, "end_s": at + 0.5, "label": "Laughter", "speaker": SPEAKERS[at // 10 % 2]}
        for at in range(0, int(seconds) - 1, 10)
    ]
    lines = [
        {"name": f"episode {i}", "split": "train", "speakers": speakers, "events": laughs}
        for i in range(num_recordings)
    ]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Corpus(f"{suffix} at {sample_rate / 1000:g} kHz", manifest)


def _sound(seed: int, sample_rate: int) -> np.ndarray:
    """Return f32[N]: a gliding tone that comes and goes, over a little noise."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(_BLOCK_SECONDS * sample_rate) / sample_rate
    pitch_hz = 250 + 100 * np.sin(2 * np.pi * (3 + seed) * time_s)
    tone = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch_hz) / sample_rate)
    heard = np.sin(2 * np.pi * 0.4 * time_s + seed) > 0
    return (tone * heard + 0.01 * rng.standard_normal(len(time_s))).astype(np.float32)


@dataclass(frozen=True)
class Work:
    """A model, how it is called, and how many recordings of one length it hears."""

    group: str
    model: FeatureModel
    shape: LmShape
    numerics: Numerics
    num_recordings: int
    num_frames: int
    """Of each recording."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def num_row_frames(self) -> int:
        """Of all recordings, two assignments each."""
        return SIDES * self.num_recordings * self.num_frames

    @property
    def num_tokens(self) -> int:
        """Row-frames of a call."""
        return SIDES * self.numerics.slots * self.numerics.chunk_frames

    @property
    def flops_per_frame(self) -> float:
        """Operations of the language model for a row-frame."""
        return self.shape.flops_per_frame(self.num_frames)

    @property
    def flops(self) -> float:
        """Operations of the language model for all recordings."""
        return self.num_row_frames * self.flops_per_frame

    @cached_property
    def spec(self) -> FeatureSpec:
        """Of features that no released model made."""
        return FeatureSpec(
            model="local",
            revision=None,
            weights_sha256="0" * 64,
            dim=self.model.dim,
            numerics=self.numerics,
        )

    @property
    def shard_bytes(self) -> int:
        """Bytes of all shards."""
        spec = self.spec
        geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
        return SIDES * self.num_recordings * geometry.stream_bytes(self.num_frames)

    def corpus(self, folder: Path, sample_rate: int, suffix: str) -> Corpus:
        """Write the recordings as files of this kind."""
        return write_corpus(
            folder,
            num_recordings=self.num_recordings,
            num_frames=self.num_frames,
            sample_rate=sample_rate,
            suffix=suffix,
        )

    def prepare(self, *, allow_tf32: bool = False) -> None:
        """Set what a build sets for the whole process."""
        torch.set_num_threads(self.numerics.threads)
        torch.backends.cuda.matmul.allow_tf32 = allow_tf32
        torch.backends.cudnn.allow_tf32 = allow_tf32

    def wait(self) -> None:
        """Wait until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def matrix_products(work: Work, size: int, count: int) -> Callable[[], float]:
    """Return a run of `count` products of square matrices of the model's dtype."""
    left, right, out = (
        torch.randn(size, size, device=work.device, dtype=work.model.dtype) for _ in range(3)
    )

    @torch.inference_mode()
    def run() -> float:
        for _ in range(count):
            torch.mm(left, right, out=out)
        work.wait()
        return 2.0 * size**3 * count

    return run


def layer_products(work: Work, count: int) -> Callable[[], float]:
    """Return a run of the matrix products of one layer and one call, `count` times."""
    pairs = [
        tuple(
            torch.randn(*shape, device=work.device, dtype=work.model.dtype)
            for shape in ((work.num_tokens, inputs), (outputs, inputs))
        )
        for inputs, outputs in work.shape.matrices
    ]
    flops = 2.0 * work.num_tokens * sum(a * b for a, b in work.shape.matrices)

    @torch.inference_mode()
    def run() -> float:
        for _ in range(count):
            for rows, weight in pairs:
                nn.functional.linear(rows, weight)
        work.wait()
        return flops * count

    return run


def record_calls(work: Work, corpus: Corpus) -> list[Call[torch.Tensor]]:
    """Return the calls that a build of the corpus makes, audio staged for the device."""
    found = survey(BuildConfig(dataset=corpus.manifest, store=corpus.manifest.parent / "none"))
    sources = [
        Source(item.source.id, item.num_frames, pair.open, num_assignments=pair.num_assignments)
        for item in found.recordings
        for pair in item.roles.pairs
    ]
    batch = _batch(work)
    feeder = Feeder(
        sources,
        slots=work.numerics.slots,
        chunk_frames=work.numerics.chunk_frames,
        restart_frames=None,
        stage=lambda audio: batch.stage(audio.copy()),  # all calls are kept
        threads=SIDES * work.numerics.slots,
    )
    with feeder:
        calls = [item for item in feeder if isinstance(item, Call)]
    passages = [passage for call in calls for passage in call.passages if passage is not None]
    assert SIDES * sum(item.num_frames for item in passages) == work.num_row_frames
    return calls


def _batch(work: Work) -> SlotBatch:
    return SlotBatch(work.model, slots=work.numerics.slots, chunk_frames=work.numerics.chunk_frames)


def bare_calls(work: Work, calls: list[Call[torch.Tensor]]) -> Callable[[], float]:
    """Return a run of the calls that a build makes: both networks, features copied to the host."""

    def run() -> float:
        last = None
        with _batch(work) as batch:
            for call in calls:
                if call.restarts.any():
                    batch.restart(call.restarts)
                pending = batch.step(call.audio, call.text)
                if last is not None:
                    last.wait()
                last = pending
            assert last is not None
            last.wait()
        return work.flops

    return run


def lm_alone(work: Work, calls: list[Call[torch.Tensor]]) -> Callable[[], float]:
    """Return a run of the language model in as many calls, over random codes on the device."""
    lm, steps = work.model.lm, work.numerics.chunk_frames
    rows = SIDES * work.numerics.slots
    speech = torch.randint(lm.card, (rows, NUM_STREAMS - 1, steps), device=work.device)
    words = torch.full_like(speech[:, :1], PADDING_ID)
    streams = torch.cat([words, speech], dim=1)

    @torch.inference_mode()
    def run() -> float:
        streaming = exact_streaming(lm.transformer, lm.transformer, rows=rows, steps_per_call=steps)
        with no_compile(), no_cuda_graph(), streaming:
            for call in calls:
                if call.restarts.any():
                    chosen = torch.from_numpy(call.restarts).to(work.device)
                    restart_rows(lm.transformer, chosen.repeat_interleave(SIDES))
                lm.forward_text(streams)
            work.wait()
        return work.flops

    return run


def mimi_alone(work: Work, calls: list[Call[torch.Tensor]]) -> Callable[[], float]:
    """Return a run of Mimi over the audio of the calls."""
    mimi, transformer = work.model.mimi, work.model.mimi.encoder_transformer
    assert transformer is not None

    @torch.inference_mode()
    def run() -> float:
        streaming = exact_streaming(
            mimi,
            transformer,
            rows=SIDES * work.numerics.slots,
            steps_per_call=2 * work.numerics.chunk_frames,
        )
        with no_compile(), no_cuda_graph(), streaming:
            for call in calls:
                if call.restarts.any():
                    chosen = torch.from_numpy(call.restarts).to(work.device)
                    restart_rows(mimi, chosen.repeat_interleave(SIDES))
                waves = call.audio.to(work.device, non_blocking=True).flatten(0, 1)
                latents = mimi.encode_to_latent(waves[:, None], quantize=False)
                mimi.quantizer.encode(latents)
            work.wait()
        return work.flops

    return run


@dataclass
class Build:
    """Builds a store of a corpus with a model that is loaded already."""

    work: Work
    corpus: Corpus
    store: Path
    allow_tf32: bool = False

    def before(self) -> None:
        """Remove what the last build wrote."""
        shutil.rmtree(self.store, ignore_errors=True)

    def run(self) -> float:
        """Survey, plan, extract, write and commit."""
        work, progress = self.work, NoProgress()
        config = BuildConfig(dataset=self.corpus.manifest, store=self.store)
        found = survey(config)
        by_id = {item.source.id: item for item in found.recordings}
        numerics = replace(work.numerics, allow_tf32=self.allow_tf32)
        spec = replace(work.spec, numerics=numerics)
        plan = begin_plan(self.store, plan_of(spec, work.device, found))
        extraction = Extraction(config, plan, None, work.device, by_id, progress, _model=work.model)
        with StoreLocks(self.store, progress) as locks:
            left_out = build_together(self.store, plan, locks, extraction.run, progress=progress)
        assert not found.skipped, found.skipped
        assert not left_out, left_out
        return work.flops

    def check(self) -> None:
        """Raise when a byte of the store is not what was written, or a frame is missing."""
        report = verify(self.store)
        if report.faults:
            raise AssertionError(f"{report.faults[0]} in the store that was built")
        shards = sum(path.stat().st_size for path in (self.store / "shards").rglob("*.tar"))
        if shards != self.work.shard_bytes:
            raise AssertionError(f"{shards} bytes of shards, not {self.work.shard_bytes}")
