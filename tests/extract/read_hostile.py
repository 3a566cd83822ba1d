"""A program: reads every file of some folders and prints what became of it, a JSON line each."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchaudio.functional  # noqa: F401 (takes room, which is not counted)

from extract.sound.tracks import AudioTrack, probe_audio
from laughstore.errors import BadRecording
from laughstore.timebase import SAMPLES_PER_FRAME

ROOM_BYTES = 512 << 20
FRAMES_AT_ONCE = 500


def main(folders: list[Path]) -> None:
    """Read within a bound on the address space."""
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    wave = np.empty(FRAMES_AT_ONCE * SAMPLES_PER_FRAME, np.float32)
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        began = time.perf_counter()
        outcome: dict[str, object] = {"path": str(path)}
        try:
            num_frames = probe_audio(path).num_frames
            with AudioTrack(path) as track:
                for _ in range(0, num_frames, FRAMES_AT_ONCE):
                    track.read(wave)
            outcome["frames"] = num_frames
        except BadRecording as error:
            outcome["refused"] = str(error)
        outcome["seconds"] = round(time.perf_counter() - began, 3)
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
