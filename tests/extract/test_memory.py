"""Memory does not grow with a recording: neither a build's peak, nor the masks of attention."""

import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from extract.features import SlotBatch
from extract.model import load_model, resolve_model
from extract.synthetic.tiny_checkpoint import CONTEXT_FRAMES
from extract.synthetic.tiny_mimi import CONTEXT_STEPS
from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

SHORT_S = 10 * 60
BUILD_AND_TELL = """
import sys
from pathlib import Path
from laughstore.cli.main import main
code = main(sys.argv[1:])
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(f"\\npeak {code} {peak}")
"""


def write_wav(path: Path, seconds: int) -> None:
    """A track of silence with a second of noise every half minute; holes take no disk."""
    num_bytes = 2 * SAMPLE_RATE * seconds
    noise = np.random.default_rng(0).normal(0, 3_000, SAMPLE_RATE).astype("<i2").tobytes()
    form = struct.pack("<4sI4s", b"RIFF", 36 + num_bytes, b"WAVE")
    about = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    header = form + about + struct.pack("<4sI", b"data", num_bytes)
    with path.open("wb") as file:
        file.write(header)
        for start_s in range(0, seconds, 30):
            file.seek(len(header) + 2 * SAMPLE_RATE * start_s)
            file.write(noise)
        file.truncate(len(header) + num_bytes)


def write_conversation(folder: Path, seconds: int, words_per_s: float) -> Path:
    """Return a manifest of one recording: two who take turns, words and laughs all along."""
    folder.mkdir()
    for name in "ab":
        write_wav(folder / f"{name}.wav", seconds)
    line = {
        "name": "talk",
        "split": "train",
        "speakers": [
            {"name": name, "audio": {"path": f"{name}.wav"}, "total_s": seconds / 2}
            for name in "ab"
        ],
        "events": [
            {"start_s": at, "end_s": at + 0.5, "label": "Laughter", "speaker": "ab"[at % 2]}
            for at in range(0, seconds - 1, 7)
        ],
        "segments": [
            {"start_s": at, "end_s": at + 4, "speaker": "ab"[at // 5 % 2]}
            for at in range(0, seconds - 4, 5)
        ],
        "words": [
            {"start_s": 0.4 * i, "end_s": 0.4 * i + 0.3, "text": "words", "speaker": "ab"[i % 2]}
            for i in range(int(words_per_s * seconds))
        ],
    }
    manifest = folder / "manifest.jsonl"
    manifest.write_text(json.dumps(line) + "\n")
    return manifest


def peak_kb(folder: Path, seconds: int, flags: Sequence[str], **environment: str) -> int:
    """Return the peak resident memory of `laughstore build`, in a process of its own."""
    manifest = write_conversation(folder, seconds, words_per_s=2.5)
    command = [sys.executable, "-c", BUILD_AND_TELL, "build", str(manifest)]
    command += ["--store", str(folder / "store"), "--device", "cpu", *flags]
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=1_500,
        check=False,
    )
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    word, code, peak = done.stdout.splitlines()[-1].split()
    assert (word, code) == ("peak", "0"), done.stdout
    return int(peak)


@pytest.mark.slow
def test_a_build_of_three_hours_takes_as_much_memory_as_one_of_ten_minutes(
    nano_checkpoint: Path, tmp_path: Path
) -> None:
    flags = ["--model", str(nano_checkpoint), "--text", "causal"]
    # Medians of builds in turn: what glibc keeps differs by 2 % from one run to the next.
    pairs = [
        (
            peak_kb(tmp_path / "short", SHORT_S, flags),
            peak_kb(tmp_path / "long", 3 * 3600, flags),
        )
        for _ in range(3)
    ]
    short, long = (statistics.median(peaks) for peaks in zip(*pairs, strict=True))
    assert long <= 1.05 * short, pairs


@pytest.mark.slow
def test_nor_do_three_hours_of_a_control_which_has_the_smallest_process(tmp_path: Path) -> None:
    flags = ["--tap", "logmel"]
    # Every large array is mapped by itself, so that the peak is of what is in use. By default glibc
    # takes them from a heap with holes, which adds 0 to 3 % from one run to the next.
    mapped = {"MALLOC_MMAP_THRESHOLD_": str(256 << 10)}
    short = peak_kb(tmp_path / "short", SHORT_S, flags, **mapped)
    assert peak_kb(tmp_path / "long", 3 * 3600, flags, **mapped) <= 1.05 * short


@pytest.mark.parametrize("num_calls", [2, 30])
def test_masks_of_attention_are_as_wide_as_the_ring_however_long_the_recording(
    nano_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, num_calls: int
) -> None:
    chunk_frames, sides = 8, 2
    attention = torch.nn.functional.scaled_dot_product_attention
    shapes: set[tuple[int, ...]] = set()

    def spy(query, key, value, mask, **options):
        assert mask is not None
        assert mask.shape[2:] == (query.shape[2], key.shape[2])
        shapes.add(tuple(mask.shape))
        return attention(query, key, value, mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    model = load_model(resolve_model(str(nano_checkpoint)), device="cpu", dtype=torch.float32)
    audio = np.zeros((1, sides, chunk_frames * SAMPLES_PER_FRAME), np.float32)
    with SlotBatch(model, slots=1, chunk_frames=chunk_frames) as batch:
        for _ in range(num_calls):
            batch.step(batch.stage(audio)).wait()

    def ring(window: int, steps: int) -> int:
        return -(-(window + steps - 1) // 64) * 64

    assert num_calls == 2 or num_calls * chunk_frames > 3 * CONTEXT_FRAMES
    steps = 2 * chunk_frames
    assert shapes == {
        (sides, 1, chunk_frames, ring(CONTEXT_FRAMES, chunk_frames)),
        (sides, 1, steps, ring(CONTEXT_STEPS, steps)),
    }
