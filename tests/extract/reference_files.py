"""Files as the earlier scripts wrote them, of small features that we know, and their data set."""

import json

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

from extract.datasets import DIARIZATIONS, EVENTS, INTERVALS, TRANSCRIPTS, TURNS

from .trees import CONTENT, NAME, Tree

SECOND = "Other show_1"
SPLITS = {NAME: "train", SECOND: "validation"}
ROLES = (("SPEAKER_01", "SPEAKER_00"), ("SPEAKER_00", "SPEAKER_01"))
"""(user, system) of both assignments: the one who speaks longer is the user of the first."""
SECONDS, NUM_FRAMES, DIM = 3.0, 38, 64


def dataset(root):
    """The data set that the features are of: two episodes of 3 s."""
    tree = Tree(root)
    for name, split in SPLITS.items():
        for speaker in ("SPEAKER_00", "SPEAKER_01"):
            tree.track(speaker, name, split, seconds=SECONDS)
        for kind in (DIARIZATIONS, EVENTS, TRANSCRIPTS, TURNS, INTERVALS):
            tree.write(kind, CONTENT[kind], name=name, split=split)
    return root


def features(name, num_frames=NUM_FRAMES):
    """f4[2, T, D], each value one of bfloat16."""
    rng = np.random.default_rng([*name.encode()])
    values = rng.standard_normal((2, num_frames, DIM), np.float32)
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def about(name, length=NUM_FRAMES, **changes):
    """What a .pt file says of itself."""
    return {
        "episode_name": name,
        "split": SPLITS.get(name, "train"),
        "top_speakers": [user for user, _ in ROLES],
        "assignments": [{"user": user, "system": system} for user, system in ROLES],
        "duration_seconds": SECONDS,
        "num_frames": length,
    } | changes


def write_pt(folder, name=NAME, values=None, dtype=torch.bfloat16, **changes):
    """<split>/<episode>.pt; without `values` those of `features`."""
    values = features(name) if values is None else values
    path = folder / SPLITS.get(name, "train") / f"{name}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "transformer_out": torch.from_numpy(values).to(dtype),
        "metadata": about(name, values.shape[1], **changes),
    }
    torch.save(content, path)
    return path


def write_episode_folder(folder, name=NAME, values=None, roles=ROLES, **changes):
    """<split>/<episode>/features_assignment_<K>.npy, with labels and metadata beside them."""
    values = features(name) if values is None else values
    path = folder / SPLITS[name] / name
    path.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(values):
        np.save(path / f"features_assignment_{number}.npy", rows)
        np.save(path / f"labels_assignment_{number}_shift_1.npy", np.zeros(len(rows), np.int32))
    stats = {"num_positive_frames": 0, "positive_rate": 0.0}
    content = {
        "episode_name": name,
        "split": SPLITS[name],
        "duration_seconds": SECONDS,
        "frame_rate": 12.5,
        "num_frames": values.shape[1],
        "shift_frames": 1,
        "assignments": [
            {"assignment_idx": i, "user_speaker_id": user, "system_speaker_id": system, **stats}
            for i, (user, system) in enumerate(roles)
        ],
    }
    (path / "metadata_shift_1.json").write_text(json.dumps(content | changes))
    return path


def write_whole_splits(folder):
    """<split>_features.npy, with labels and a list of episodes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in SPLITS.items():
        values = features(name)
        np.save(folder / f"{split}_features.npy", np.concatenate(list(values)))
        np.save(folder / f"{split}_labels.npy", np.zeros(2 * NUM_FRAMES, np.int32))
        episodes = [
            {
                "episode_name": name,
                "assignment_idx": i,
                "user_speaker_id": user,
                "system_speaker_id": system,
                "start_frame": i * NUM_FRAMES,
                "end_frame": (i + 1) * NUM_FRAMES,
                "num_frames": NUM_FRAMES,
            }
            for i, (user, system) in enumerate(ROLES)
        ]
        content = {"split": split, "num_frames": 2 * NUM_FRAMES, "episodes": episodes}
        (folder / f"{split}_metadata.json").write_text(json.dumps(content))
    return folder


def frame_list(name, num_frames=NUM_FRAMES):
    """One object a row."""
    return [
        {"episode_name": name, "user_id": user, "frame_idx": frame, "assignment_idx": i}
        for i, (user, _) in enumerate(ROLES)
        for frame in range(num_frames)
    ]


def write_listed(folder):
    """<split>/features.npy, with labels and one object a frame."""
    for name, split in SPLITS.items():
        path = folder / split
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "features.npy", np.concatenate(list(features(name))))
        np.save(path / "labels.npy", np.zeros(2 * NUM_FRAMES, np.int32))
        (path / "metadata.json").write_text(json.dumps(frame_list(name)))
        (path / "extraction_info.json").write_text("{}")
    return folder


def write_plain(folder, dtype: npt.DTypeLike = np.float32, suffix=".npy"):
    """<split>/<recording>.npy or .pt, and nothing that says whose."""
    for name, split in SPLITS.items():
        path = folder / split / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".pt":
            torch.save(torch.from_numpy(features(name)), path)
        else:
            np.save(path, features(name).astype(dtype))
    return folder


def write_each(write):
    """A writer of a folder of a writer of one recording."""

    def write_all(folder):
        for name in SPLITS:
            write(folder, name)
        return folder

    return write_all


FORMS = {
    "pt": write_each(write_pt),
    "pt float32": write_each(lambda folder, name: write_pt(folder, name, dtype=torch.float32)),
    "episode folders": write_each(write_episode_folder),
    "whole splits": write_whole_splits,
    "frame lists": write_listed,
    "plain npy": write_plain,
    "plain npy bfloat16": lambda folder: write_plain(folder, ml_dtypes.bfloat16),
    "plain pt": lambda folder: write_plain(folder, suffix=".pt"),
}
