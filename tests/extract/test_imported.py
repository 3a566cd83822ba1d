"""Features of the earlier scripts become a store: exactly, whatever their form, and safely."""

import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from extract.imported import frame_list as frame_list_module
from extract.imported.config import ImportConfig
from extract.imported.files import open_feature_file
from extract.imported.frame_list import Run, read_frame_list
from extract.imported.layouts import find_features
from extract.imported.rounding import not_finite, round_to_bfloat16
from extract.imported.run import import_features
from extract.imported.survey import NO_ANNOTATIONS, survey_features
from laughstore import open_store
from laughstore.errors import (
    BadRecording,
    ConfigError,
    CorruptData,
    LaughstoreError,
    NotFound,
    SpecMismatch,
)
from laughstore.integrity.verify import verify
from laughstore.progress import NoProgress
from laughstore.spec import UNKNOWN, FeatureSpec
from laughstore.timebase import Span
from tests.faults.harness import leftovers, tree
from tests.stores import Episode, random_features, spec_for, write_store

from .reference_files import (
    DIM,
    FORMS,
    NUM_FRAMES,
    ROLES,
    SECOND,
    SPLITS,
    dataset,
    features,
    frame_list,
    write_episode_folder,
    write_plain,
    write_pt,
)
from .trees import NAME, Published


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("import") / "dataset")


@pytest.fixture(scope="module")
def imported(source, tmp_path_factory):
    """A store of the .pt form; tests must not change it."""
    folder = tmp_path_factory.mktemp("imported")
    FORMS["pt"](folder / "features")
    result = import_features(config(folder, source))
    assert (result.num_imported, result.left_out) == (2, ())
    return folder / "store"


def config(folder, source=None, **changes):
    given = {"features": folder / "features", "store": folder / "store", "dataset": source}
    return ImportConfig(**(given | changes))


def reason(folder, source=None, **changes):
    """Why the only recording is left out."""
    (skipped,) = survey_features(config(folder, source, **changes)).skipped
    assert "\n" not in skipped.reason
    return skipped.reason


def test_features_stand_in_the_store_as_they_were(imported):
    store = open_store(imported)
    assert [item.name for item in store.recordings] == list(SPLITS)
    for name, split in SPLITS.items():
        (recording,) = (item for item in store.recordings if item.name == name)
        assert (recording.split, recording.num_frames) == (split, NUM_FRAMES)
        assert [(s.main, s.other) for s in recording.streams] == list(ROLES)
        for stream, expected in zip(recording.streams, features(name), strict=True):
            found = store.frames(name, stream.assignment)
            assert np.array_equal(found.astype(np.float32), expected)
            assert (np.asarray(store.codes(name, stream.assignment)[:]) == -1).all()
        annotations = store.annotations(name)
        assert annotations.duration_us == 3_000_000
        assert [event.speaker for event in annotations.events] == ["SPEAKER_01"]
    assert not verify(imported).faults


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_store(form, source, imported, tmp_path):
    FORMS[form](tmp_path / "features")
    result = import_features(config(tmp_path, source))
    assert result.left_out == ()
    assert (result.num_values, result.num_rounded) == (2 * 2 * NUM_FRAMES * DIM, 0)
    assert tree(tmp_path / "store") == tree(imported)


def test_rounding_is_to_nearest_even_for_every_upper_half():
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (upper[:, None] | lower).view(np.float32)
    found = round_to_bfloat16(values)
    expected = torch.from_numpy(values).to(torch.bfloat16)
    is_nan = np.isnan(values)
    assert np.array_equal(
        found.bits[~is_nan], expected.view(torch.int16).numpy().view("u2")[~is_nan]
    )
    exact = expected.to(torch.float32).numpy() == values
    assert found.num_rounded == int((~exact).sum())
    rows = np.isnan(values) | ~np.isfinite(expected.to(torch.float32).numpy())
    first = np.flatnonzero(rows.any(1))[0]
    assert not_finite(found.bits) == first == 0x7F7F  # the largest, rounded up
    assert not_finite(found.bits[:first]) is None


def test_every_float16_is_rounded_as_torch_does():
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    values = values[np.isfinite(values)].reshape(-1, 1)
    found = round_to_bfloat16(values)
    expected = torch.from_numpy(values).to(torch.bfloat16)
    assert np.array_equal(found.bits, expected.view(torch.int16).numpy().view("u2"))
    assert found.num_rounded == int((expected.to(torch.float16).numpy() != values).sum()) > 0


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", ">f2"])
def test_numbers_of_any_byte_order_and_memory_order(dtype, tmp_path):
    values = features(NAME)[0].astype(dtype)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", np.asfortranarray(values))
    expected = values.astype(np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)
    for name in "ab":
        file = open_feature_file(tmp_path / f"{name}.npy")
        assert (file.num_streams, file.num_rows, file.dim) == (1, NUM_FRAMES, DIM)
        assert np.array_equal(file.read(0, 5, 30).bits, expected[5:30])


def test_how_many_values_were_rounded_is_told(source, tmp_path):
    values = features(NAME)
    values[1, 3, :7] += np.float32(1e-6)
    write_pt(tmp_path / "features", values=values, dtype=torch.float32)
    result = import_features(config(tmp_path, source))
    exact = values.astype(ml_dtypes.bfloat16).astype(np.float32) == values
    assert result.num_rounded == int((~exact).sum()) > 0


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        (np.nan, torch.bfloat16, "NaN or infinite"),
        (np.inf, torch.float32, "NaN or infinite"),
        (-np.inf, torch.float16, "NaN or infinite"),
        (3.4e38, torch.float32, "larger than the largest bfloat16"),
    ],
)
def test_a_value_that_is_no_number_leaves_the_recording_out(value, dtype, said, source, tmp_path):
    values = features(NAME)
    values[1, 17, 5] = value
    path = write_pt(tmp_path / "features", values=values, dtype=dtype)
    write_pt(tmp_path / "features", SECOND)
    result = import_features(config(tmp_path, source))
    (left_out,) = result.left_out
    assert left_out.name == NAME
    assert left_out.reason.startswith(f"train/{path.name}: a value of frame 17 ")
    assert said in left_out.reason
    store = tmp_path / "store"
    assert [item.name for item in open_store(store).recordings] == [SECOND]
    assert not verify(store).faults
    assert not list((store / "shards").glob("train-*"))
    again = import_features(config(tmp_path, source))
    assert (again.was_finished, again.left_out) == (True, result.left_out)
    with pytest.raises(BadRecording, match="frame 17"):
        import_features(config(tmp_path, source, store=tmp_path / "strict", strict=True))


# Safety


class Canary:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def hostile(folder, canary):
    """Files that would run code, by their names."""
    folder.mkdir()
    good = torch.zeros(2, NUM_FRAMES, DIM)
    torch.save({"transformer_out": good, "metadata": Canary(canary)}, folder / "metadata.pt")
    torch.save({"transformer_out": Canary(canary)}, folder / "tensor.pt")
    torch.save(Canary(canary), folder / "bare.pt")
    torch.save(Canary(canary), folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "pickle.pt").write_bytes(pickle.dumps(Canary(canary)))
    (folder / "pickle.npy").write_bytes(pickle.dumps(Canary(canary)))
    np.save(folder / "objects.npy", np.array([[Canary(canary)]], object), allow_pickle=True)
    np.savez(folder / "objects", a=np.array([Canary(canary)], object))
    (folder / "objects.npz").rename(folder / "archive.npy")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(folder / "script.pt"))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_no_pickled_code_ever_runs(source, tmp_path, monkeypatch):
    # With this variable torch's own default would be to run it.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary = tmp_path / "canary"
    hostile(tmp_path / "features", canary)
    found = find_features(tmp_path / "features")
    assert len(found) == 9
    for item in found:
        assert item.problem is not None, item.name
        assert "\n" not in item.problem
        assert len(item.problem) < 400
    named = {item.name: item.problem for item in found}
    assert f"{os.mkdir.__module__}.mkdir" in (named["tensor"] or "")
    with pytest.raises(LaughstoreError, match="none of 9 recordings can be imported"):
        import_features(config(tmp_path, source))
    assert not canary.exists()
    # The files do what they are said to do.
    with pytest.raises(FileExistsError):
        [
            torch.load(tmp_path / f"features/{name}.pt", weights_only=False)
            for name in ("bare", "old")
        ]
    assert canary.exists()


def test_files_that_claim_more_than_they_hold_are_refused(tmp_path):
    rows = torch.zeros(2, 1000, DIM)
    torch.save(torch.zeros(1).expand(1 << 20, 1 << 12), tmp_path / "expanded.pt")
    torch.save(torch.eye(DIM).to_sparse(), tmp_path / "sparse.pt")
    torch.save(torch.zeros(2, 3, DIM, device="meta"), tmp_path / "meta.pt")
    torch.save({"transformer_out": rows}, tmp_path / "good.pt")
    with (
        zipfile.ZipFile(tmp_path / "good.pt") as good,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for item in good.infolist():
            packed.writestr(item.filename, good.read(item))
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 28, 4096)}
    with (tmp_path / "huge.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    expected = {
        "expanded.pt": "shows the same few bytes",
        "sparse.pt": "sparse",
        "meta.pt": "empty tensor",
        "packed.pt": "packed archive",
        "huge.npy": "no whole .npy file",
    }
    for name, said in expected.items():
        with pytest.raises(BadRecording, match=said):
            open_feature_file(tmp_path / name)
    assert open_feature_file(tmp_path / "good.pt").num_rows == 1000


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
def test_a_cut_file_is_refused(suffix, tmp_path):
    write_plain(tmp_path, suffix=suffix)
    path = tmp_path / "train" / f"{NAME}{suffix}"
    data = path.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(BadRecording, match="whole"):
            open_feature_file(path)


def test_a_flipped_bit_of_a_pt_file_leaves_the_recording_out(source, tmp_path):
    path = write_pt(tmp_path / "features")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        (item,) = (item for item in archive.infolist() if item.filename.endswith("data/0"))
    data[item.header_offset + 3000] ^= 1
    path.write_bytes(data)
    torch.load(path, weights_only=True)  # torch would not have noticed
    with pytest.raises(LaughstoreError, match="not those that were saved"):
        import_features(config(tmp_path, source))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(BadRecording, match="no plain file"):
        open_feature_file(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 4), np.uint16), "uint16; features are float32"),
        (np.zeros((3, 4), np.float64), "float64; features are float32"),
        (np.zeros((0, 4), np.float32), "shape \\[0, 4\\]"),
        (np.zeros(4, np.float32), "shape \\[4\\]"),
        (np.zeros((1, 2, 3, 4), np.float32), "shape \\[1, 2, 3, 4\\]"),
    ],
)
def test_arrays_of_other_kinds_are_refused(array, said, tmp_path):
    np.save(tmp_path / "a.npy", array)
    torch.save(torch.from_numpy(array), tmp_path / "a.pt")
    for name in ("a.npy", "a.pt"):
        with pytest.raises(BadRecording, match=said):
            open_feature_file(tmp_path / name)


# Lengths


def test_features_of_another_length_than_the_audio_name_both(source, tmp_path):
    write_pt(tmp_path / "features", values=features(NAME, 37))
    said = reason(tmp_path, source)
    assert "37 frames (2.96 s), its audio has 38 (3.00 s)" in said
    assert "--length-tolerance 1f" in said


def test_a_tolerance_takes_them_and_cuts_what_is_behind_the_audio(source, tmp_path):
    for name, num_frames in ((NAME, 37), (SECOND, 40)):
        write_pt(tmp_path / "features", name, values=features(name, num_frames))
    found = survey_features(config(tmp_path, source, length_tolerance=Span("1f")))
    assert [item.name for item in found.recordings] == [NAME]
    import_features(config(tmp_path, source, length_tolerance=Span("2f")))
    store = open_store(tmp_path / "store")
    assert [item.num_frames for item in store.recordings] == [37, 38]
    expected = features(SECOND, 40)[0, :38]
    assert np.array_equal(store.frames(SECOND).astype(np.float32), expected)


def test_without_a_data_set_the_length_is_the_one_that_was_written_down(tmp_path):
    write_pt(tmp_path / "features", duration_seconds=2.9)
    assert "the audio they say they are of has 37 (2.90 s)" in reason(tmp_path)


def test_a_length_that_nothing_tells_is_refused_unless_asked_for(source, tmp_path):
    write_pt(tmp_path / "features", duration_seconds=None)
    assert "nothing tells how long its audio is" in reason(tmp_path)
    found = survey_features(config(tmp_path, length_tolerance="off"))
    assert [item.duration_us for item in found.recordings] == [NUM_FRAMES * 80_000]


def test_frames_that_are_not_those_written_down(source, tmp_path):
    write_pt(tmp_path / "features", num_frames=39)
    assert "has 38 frames, its metadata say 39" in reason(tmp_path, source)


# Whose they are


def test_without_a_data_set_there_are_no_events_and_it_is_said(tmp_path):
    write_pt(tmp_path / "features")
    result = import_features(config(tmp_path))
    assert NO_ANNOTATIONS in result.notes
    annotations = open_store(tmp_path / "store").annotations(NAME)
    assert annotations.events == ()
    assert [item.name for item in annotations.speakers] == ["SPEAKER_00", "SPEAKER_01"]


def test_episodes_whose_roles_were_not_written_have_those_of_the_data_set(
    source, imported, tmp_path
):
    write_episode_folder(tmp_path / "features", NAME, assignments=[])
    write_episode_folder(tmp_path / "features", SECOND)
    import_features(config(tmp_path, source))
    assert tree(tmp_path / "store") == tree(imported)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"assignments": [{"user": "Ann", "system": "Bob"}] * 2}, "the same main and other"),
        (
            {"assignments": [{"user": "Ann", "system": "Bob"}, {"user": "Bob", "system": "Ann"}]},
            "features are of Ann, Bob, the data set knows SPEAKER_00, SPEAKER_01",
        ),
        ({"assignments": [{"user": "SPEAKER_00", "system": None}]}, "2 streams and 1 assignments"),
        ({"assignments": [{"system": "SPEAKER_00"}] * 2}, "no key 'assignments\\[0\\].user'"),
        ({"assignments": 3}, "'assignments' is no list"),
        ({"split": "test"}, "folder of split 'train', and says 'test'"),
        ({"episode_name": "Nobody_1"}, "which? recording that|does not have"),
        ({"episode_name": 7}, "'episode_name' is no text"),
    ],
)
def test_what_a_file_says_is_checked(changes, said, source, tmp_path):
    write_pt(tmp_path / "features", **changes)
    assert re.search(said, reason(tmp_path, source))


def test_several_others_at_once_are_refused_and_masked_laughter_is_told(source, tmp_path):
    path = write_episode_folder(tmp_path / "features", mask_laughter=True)
    found = survey_features(config(tmp_path, source))
    assert any("laughter was silenced" in note for note in found.notes)
    about = json.loads((path / "metadata_shift_1.json").read_text())
    for item in about["assignments"]:
        item["system_speaker_ids"] = ["SPEAKER_00", "SPEAKER_02"]
    (path / "metadata_shift_1.json").write_text(json.dumps(about))
    assert "against 2 others at once" in reason(tmp_path, source)
    for item in about["assignments"]:
        item["system_speaker_ids"] = ["\ud83d"]  # half of a pair is no text
    (path / "metadata_shift_1.json").write_text(json.dumps(about))
    assert "is no list of speakers" in reason(tmp_path, source)


def test_the_split_of_the_data_set_counts(source, tmp_path):
    path = write_pt(tmp_path / "features", split="test")
    path.parent.rename(tmp_path / "features/test")
    found = survey_features(config(tmp_path, source))
    assert [item.split for item in found.recordings] == ["train"]
    assert any("say split test, the data set train" in note for note in found.notes)


def test_a_data_set_without_its_audio_gives_events_and_no_length(tmp_path):
    source = dataset(tmp_path / "dataset")
    shutil.rmtree(source / "audio")
    FORMS["pt"](tmp_path / "features")
    import_features(config(tmp_path, source))
    assert len(open_store(tmp_path / "store").annotations(NAME).events) == 1
    FORMS["whole splits"](tmp_path / "others")
    found = survey_features(config(tmp_path, source, features=tmp_path / "others"))
    assert [item.reason.split(": ")[1][:36] for item in found.skipped] == [
        "nothing tells how long its audio is,"
    ] * 2


def test_a_data_set_that_does_not_know_who_speaks(tmp_path):
    mixes = Published(tmp_path / "mixes").episode()
    write_pt(tmp_path / "features")
    import_features(config(tmp_path, mixes.root))
    store = open_store(tmp_path / "store")
    assert [stream.main for stream in store.recordings[0].streams] == [main for main, _ in ROLES]
    annotations = store.annotations(NAME)
    assert [item.name for item in annotations.speakers] == ["SPEAKER_00", "SPEAKER_01"]
    assert [event.speaker for event in annotations.events] == [None]


def test_features_of_a_mix(tmp_path):
    mixes = Published(tmp_path / "mixes").episode()
    (tmp_path / "features").mkdir()
    np.save(tmp_path / f"features/{NAME}.npy", features(NAME)[0])
    import_features(config(tmp_path, mixes.root))
    (stream,) = open_store(tmp_path / "store").recordings[0].streams
    assert (stream.main, stream.other) == ("*", None)


def test_a_plain_array_without_a_data_set_is_nobodys(tmp_path):
    (tmp_path / "features/train").mkdir(parents=True)
    np.save(tmp_path / "features/train/a.npy", features(NAME))
    assert "nothing tells who is main" in reason(tmp_path)


def test_features_in_a_folder_that_is_no_place_for_them_are_told(source, tmp_path):
    path = write_pt(tmp_path / "features")
    write_pt(tmp_path / "features", SECOND)
    path.parent.rename(tmp_path / "features/of Monday")
    assert "not the folder of a split" in reason(tmp_path, source)
    (tmp_path / "features/of Monday").rename(tmp_path / "features/validation/Third_1")
    assert "not the folder of an episode" in reason(tmp_path, source)


def test_folders_that_are_not_those_of_features(tmp_path):
    with pytest.raises(NotFound, match="no such folder"):
        find_features(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="found nothing"):
        find_features(tmp_path)
    write_pt(tmp_path / "output/transformer_outs")
    with pytest.raises(ConfigError, match="but in transformer_outs/; give"):
        find_features(tmp_path / "output")
    path = write_episode_folder(tmp_path / "episodes")
    with pytest.raises(ConfigError, match="features of one episode; give the folder above"):
        find_features(path)
    assert [item.name for item in find_features(path.parent)] == [NAME]


def test_features_of_two_models_are_not_one_store(source, tmp_path):
    write_pt(tmp_path / "features")
    write_pt(tmp_path / "features", SECOND, values=np.zeros((2, NUM_FRAMES, 32), np.float32))
    with pytest.raises(ConfigError, match=r"64 channels.*32"):
        survey_features(config(tmp_path, source))


# Lists of frames


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_a_list_of_frames_is_read_in_pieces(piece, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_list_module, "_PIECE_BYTES", piece)
    name = 'Ünique {"}_1, "live"'
    path = tmp_path / "metadata.json"
    for indent, is_ascii in ((None, True), (2, False)):
        text = json.dumps(frame_list(name, 5), indent=indent, ensure_ascii=is_ascii)
        path.write_text(text)
        assert read_frame_list(path) == [
            Run(name, 0, "SPEAKER_01", 0, 5),
            Run(name, 1, "SPEAKER_00", 5, 5),
        ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: len(text) // 2], "cut or broken"),
        (lambda text: text[:-1], "cut or broken"),
        (lambda text: "{}", "no JSON list"),
        (lambda text: "[]", "lists no frames"),
        (lambda text: "[1, 2]", "cut or broken"),
        (lambda text: "[{}]", "row 0 is not of a frame"),
        (lambda text: text.replace('"frame_idx": 3', '"frame_idx": 4'), "frame 3 comes next"),
        (lambda text: text[:-1] + ", " + text[1:], "stand in two places"),
        (lambda text: "[" + "[" * 100_000, "cut or broken"),
        (lambda text: '[{"a": "' + "x" * 1_000_000 + "}", "cut or broken"),
        (lambda text: text.replace("SPEAKER_01", r"\ud83d"), "row 0 names what is no text"),
    ],
)
def test_a_list_of_frames_that_is_none(change, said, tmp_path):
    path = tmp_path / "metadata.json"
    path.write_text(change(json.dumps(frame_list(NAME, 5))))
    with pytest.raises(BadRecording, match=said):
        read_frame_list(path)


def test_a_list_of_other_rows_than_the_features_is_told(source, tmp_path):
    FORMS["frame lists"](tmp_path / "features")
    path = tmp_path / "features/train/metadata.json"
    path.write_text(json.dumps(frame_list(NAME, 5)))
    found = survey_features(config(tmp_path, source))
    assert [item.name for item in found.recordings] == [SECOND]
    assert found.skipped[0].reason.startswith(
        "train/features.npy: has 76 rows, metadata.json lists 10"
    )


# The store


def test_what_nobody_stated_is_unknown_and_what_is_stated_stands_there(imported, tmp_path):
    spec = open_store(imported).manifest.spec
    assert spec.is_imported
    unknown = (spec.model, spec.tap, spec.context, spec.text, spec.stream_order, spec.speakers)
    assert set(unknown) == {spec.weights_sha256} == {UNKNOWN}
    stated = ImportConfig(
        features=tmp_path,
        store=tmp_path,
        model="kyutai/moshiko-pytorch-bf16",
        revision="abc",
        tap="out_norm",
        context="restart:210",
        text="aligned",
        stream_order="legacy",
        speakers="top2",
    ).spec(4096)
    assert stated.numerics is None
    assert FeatureSpec.from_json(stated.to_json(), where="here") == stated
    with pytest.raises(ConfigError, match="were imported"):
        stated.how_extracted()
    for change in (
        {"numerics": 3},
        {"numerics": {}},
        {"text": "loud"},
        {"text": None},
        {"tap": "x"},
    ):
        with pytest.raises(CorruptData, match="here"):
            FeatureSpec.from_json(stated.to_json() | change, where="here")
    # Of features that were extracted everything is known.
    known = spec_for(DIM)
    with pytest.raises(CorruptData, match="only imported features"):
        FeatureSpec.from_json(known.to_json() | {"text": UNKNOWN}, where="here")


def test_imported_and_extracted_features_never_mix(source, imported, tmp_path):
    built = write_store(tmp_path / "built", [Episode("one")], random_features(DIM), dim=DIM)
    FORMS["pt"](tmp_path / "features")
    with pytest.raises(SpecMismatch, match="numerics: of an extraction, unknown"):
        import_features(config(tmp_path, source, store=built))
    with pytest.raises(SpecMismatch, match=r"context: unknown \(imported\), restart:210"):
        import_features(config(tmp_path, source, store=imported, context="restart:210"))


class Stopping(NoProgress):
    """Stops at a number of calls."""

    def __init__(self, calls_left):
        self.calls_left = calls_left

    def advance(self, amount, note=""):
        self.calls_left -= 1
        if self.calls_left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("num_calls", [0, 1, 2, 3])
def test_an_import_that_was_stopped_goes_on(num_calls, source, imported, tmp_path):
    FORMS["pt"](tmp_path / "features")
    with pytest.raises(KeyboardInterrupt):
        import_features(config(tmp_path, source), Stopping(num_calls))
    result = import_features(config(tmp_path, source))
    assert result.num_imported == (1 if num_calls == 3 else 2)
    assert tree(tmp_path / "store") == tree(imported)
    assert not leftovers(tmp_path / "store")
    again = import_features(config(tmp_path, source))
    assert (again.was_finished, again.num_imported) == (True, 0)


def test_two_files_of_one_recording_are_told_by_the_survey(source, tmp_path):
    first = write_pt(tmp_path / "features")
    second = tmp_path / "features" / "test" / f"{NAME}.npy"
    second.parent.mkdir()
    np.save(second, features(NAME))
    with pytest.raises(ConfigError, match="are both features of") as told:
        survey_features(config(tmp_path, source))
    assert str(first) in str(told.value)
    assert str(second) in str(told.value)


def test_a_list_of_frames_that_names_others_than_the_data_set_is_left_out(source, tmp_path):
    folder = tmp_path / "features" / "train"
    folder.mkdir(parents=True)
    np.save(folder / "features.npy", np.concatenate(list(features(NAME))))
    listed = [item | {"user_id": "SPEAKER_01"} for item in frame_list(NAME)]
    (folder / "metadata.json").write_text(json.dumps(listed))
    assert "names 'SPEAKER_01' as main where the data set has 'SPEAKER_00'" in reason(
        tmp_path, source
    )


FAILING = Path("/proc/self/mem")
"""A plain file, to who asks, of which the system cannot read the first byte: EIO."""


@pytest.mark.skipif(not FAILING.exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("look", "name"), [(open_feature_file, "features.npy"), (read_frame_list, "list.json")]
)
def test_a_disk_that_fails_says_nothing_of_a_file(look, name, tmp_path):
    path = tmp_path / name
    path.symlink_to(FAILING)
    with pytest.raises(OSError, match="Input/output error") as caught:
        look(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_is_cut_while_it_is_read_ends_no_process(tmp_path, order):
    """Touching its pages would (SIGBUS)."""
    np.save(tmp_path / "a.npy", np.zeros((4096, DIM), np.float32, order=order))
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from extract.imported.files import open_feature_file\n"
        "path = Path(sys.argv[1])\n"
        "file = open_feature_file(path)\n"
        "os.truncate(path, 100_000)\n"
        "file.read(0, 0, 300)\n"
        "file.read(0, 300, 4096)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.npy")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done
    assert "a.npy: was written to while it was read" in done.stderr.splitlines()[-1]


def test_a_file_that_is_written_to_while_it_is_read_ends_the_import(source, imported, tmp_path):
    """Its rows would be of two files; those behind the end of a file are zeros."""
    FORMS["pt"](tmp_path / "features")
    first = tmp_path / "features/train" / f"{NAME}.pt"

    class Writing(NoProgress):
        def advance(self, amount, note=""):
            if amount == NUM_FRAMES:
                os.utime(first, ns=(0, 0))

    with pytest.raises(LaughstoreError, match="was written to while it was read; run the same"):
        import_features(config(tmp_path, source), Writing())
    assert import_features(config(tmp_path, source)).left_out == ()
    assert tree(tmp_path / "store") == tree(imported)


def test_numbers_of_a_file_that_is_written_to_are_no_fault_of_its_recording(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.full((8, DIM), np.nan, np.float32))
    file = open_feature_file(path)
    with pytest.raises(BadRecording, match="frame 0 is NaN"):
        file.read(0, 0, 8)
    os.utime(path, ns=(0, 0))
    with pytest.raises(LaughstoreError, match="was written to while it was read"):
        file.read(0, 0, 8)


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_file_of_another_shape_than_when_it_was_looked_at_ends_the_import(
    is_whole, source, imported, tmp_path
):
    """Left out, it would stay so, as a finished store takes nothing more."""
    FORMS["pt"](tmp_path / "features")
    path = tmp_path / "features/train" / f"{NAME}.pt"
    whole = path.read_bytes()

    class Replacing(NoProgress):
        def begin(self, task, total, unit):
            if task == "import":
                torch.save(torch.zeros(1, 5, DIM), path)
                if not is_whole:
                    os.truncate(path, 100)  # as one that is being written

    with pytest.raises(LaughstoreError, match="changed since the import was begun; run the same"):
        import_features(config(tmp_path, source), Replacing())
    path.write_bytes(whole)
    assert import_features(config(tmp_path, source)).left_out == ()
    assert tree(tmp_path / "store") == tree(imported)


@pytest.mark.parametrize("place", ["", " in read-only mode"])
def test_a_file_that_the_system_does_not_map_is_not_broken(tmp_path, monkeypatch, place):
    path = write_pt(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(
            f"unable to mmap 9 bytes from file <{path}>{place}: Cannot allocate memory (12)"
        )

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(OSError, match="Cannot allocate memory") as caught:
        open_feature_file(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOMEM, str(path))


def test_a_file_of_a_file_system_that_maps_nothing_is_not_tried_for_ever(tmp_path, monkeypatch):
    """As some of FUSE answer."""
    np.save(path := tmp_path / "features.npy", np.zeros((1, 5, DIM), np.float32))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse)
    with pytest.raises(LaughstoreError, match="maps no files into memory; copy the features"):
        open_feature_file(path)


AS_NOBODY = """
import os, sys
from pathlib import Path
from extract.imported.files import open_feature_file
from laughstore.errors import BadRecording

if os.geteuid() == 0:
    os.seteuid(65534)
try:
    open_feature_file(Path(sys.argv[1]))
except BadRecording as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["features.npy", "features.pt"])
def test_a_file_that_nobody_may_read_is_not_called_broken(name):
    with tempfile.TemporaryDirectory() as folder:  # that of a test is its user's alone
        Path(folder).chmod(0o755)
        path = Path(folder, name)
        path.write_bytes(b"\x93NUMPY")
        path.chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, path], capture_output=True, text=True, timeout=60
        )
    assert done.stdout == f"{path}: cannot be read (Permission denied); check it\n", done.stderr
