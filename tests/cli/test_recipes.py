"""Every command of docs/recipes is run, in its order, on small data.

What is changed of them: words in capitals, the model (a small one), the number of processes, and
how many epochs a training has. Downloads cannot be run.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from laughstore.cli.main import main
from tests.store.servers import S3Server

from .documents import fenced, indented_lines
from .test_import import write_reference

RECIPES = Path(__file__).parents[2] / "docs/recipes"
PAGES = sorted(path.stem for path in RECIPES.glob("*.md") if path.stem != "README")
NOT_RUN = ("curl", "zip", "unzip")
"""Programs that fetch, and that unpack what was fetched: zip 3.0 damages parts that it makes."""

Follow = Callable[[str], None]


@pytest.fixture
def follow(
    nano_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> Follow:
    """Run the commands of a page in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def changed(words: list[str]) -> list[str]:
        # One machine with two cores stands for all of them.
        words = ["2" if before == "--nproc" else word for before, word in pairs(words)]
        if words[0] in ("build", "add", "predict"):
            words += ["--model", str(nano_checkpoint)]
        if words[0] == "train":
            words += ["--epochs", "2"]
        return words

    def follow(page: str, bucket: str = "") -> None:
        lines = indented_lines((RECIPES / f"{page}.md").read_text())
        assert lines
        for line in lines:
            program, *words = shlex.split(line.replace("s3://BUCKET", bucket))
            if program == "laughstore":
                code = main(changed(words))
                allowed = (0, 3) if words[:2] == ["datasets", "check"] else (0,)
                assert code in allowed, line
            elif program == "torchrun":
                at = words.index("laughstore") + 1
                words = [*words[:at], *changed(words[at:])]
                command = [sys.executable, "-m", "torch.distributed.run", *words]
                subprocess.run(command, check=True, cwd=tmp_path)
            else:
                assert program in NOT_RUN, line

    return follow


def pairs(words: list[str]) -> list[tuple[str, str]]:
    """Each word with the one before it."""
    return list(zip(["", *words[:-1]], words, strict=True))


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "STORE"))


@pytest.fixture
def data_set(corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus, tmp_path / "DATASET"))


def test_the_index_has_every_page_and_every_program_is_known():
    index = (RECIPES / "README.md").read_text()
    assert sorted(re.findall(r"\[([\w-]+)\.md\]\(\1\.md\)", index)) == PAGES
    assert f"test_{PAGES[0].replace('-', '_')}" in globals()
    for page in PAGES:
        assert f"test_{page.replace('-', '_')}" in globals(), f"{page}.md has no test"
        text = (RECIPES / f"{page}.md").read_text()
        programs = {line.split()[0] for line in indented_lines(text)}
        assert programs <= {"laughstore", "torchrun", *NOT_RUN}
        # What nobody has run is said in so many words.
        assert not programs & set(NOT_RUN) or "**Not run by us:** the download" in text


def published(corpus: Path, folder: Path) -> Path:
    """The corpus as PodcastFillers is published: mixes, and a table of all events."""
    tracks = corpus / "audio/episode_wav_dial"
    for episode in tracks.glob("*/*"):
        sounds = [soundfile.read(path) for path in sorted(episode.glob("*.wav"))]
        mix = np.clip(sum(samples for samples, _ in sounds), -1, 1)
        path = folder / "audio/episode_wav" / episode.parent.name / f"{episode.name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, mix, sounds[0][1])
    (folder / "metadata").mkdir()
    shutil.copy(corpus / "metadata/PodcastFillers.csv", folder / "metadata")
    return folder


@pytest.mark.slow
def test_podcastfillers(follow, corpus, tmp_path):
    published(corpus, tmp_path / "PodcastFillers")
    follow("podcastfillers")
    assert (tmp_path / "RUN/evaluation/test/metrics.json").exists()


@pytest.mark.slow
def test_own_corpus(follow, tmp_path):
    (manifest,) = fenced((RECIPES / "own-corpus.md").read_text(), "jsonl")
    folder = tmp_path / "DATASET"
    folder.mkdir()
    (folder / "manifest.jsonl").write_text(manifest)
    rng = np.random.default_rng(0)
    for name, channels in (("talk-1", 2), ("talk-2-ann", 1), ("talk-2-cem", 1)):
        samples = 0.1 * rng.standard_normal((8 * 24_000, channels))
        soundfile.write(folder / f"{name}.wav", samples, 24_000)
    (tmp_path / "AUDIO").mkdir()
    shutil.copy(folder / "talk-1.wav", tmp_path / "AUDIO")
    follow("own-corpus")
    assert (tmp_path / "RUN/evaluation/validation/metrics.json").exists()


@pytest.mark.slow
def test_other_events(follow, store, data_set, tmp_path, capsys):
    for path in data_set.glob("metadata/episode_event_speaker_mapping/*/*.json"):
        content = json.loads(path.read_text())
        speakers = sorted({item["speaker_id"] for item in content["events"]} - {None})
        content["events"] += [
            {
                "label_consolidated_vocab": label,
                "label_full_vocab": label,
                "event_start_inepisode": start_s,
                "event_end_inepisode": start_s + 0.4,
                "speaker_id": speaker,
            }
            for speaker in speakers
            for label, start_s in (("Breath", 3.0), ("Uh", 6.0), ("Um", 9.0), ("Breath", 12.0))
        ]
        path.write_text(json.dumps(content))
    assert main(["annotate", str(store), "--from", str(data_set), "-q"]) == 0
    follow("other-events")
    probes = {path.name for path in (tmp_path / "FILLERS/probes").iterdir()}
    assert len(probes) == 3


@pytest.mark.slow
def test_many_gpus(follow, data_set):
    follow("many-gpus")


@pytest.mark.slow
def test_many_hosts(follow, data_set):
    follow("many-hosts")


@pytest.mark.slow
def test_s3(follow, store, s3_server: S3Server, tmp_path, monkeypatch):
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    follow("s3", bucket=f"s3://{s3_server.bucket}/recipes")
    assert list((tmp_path / "CACHE").iterdir())
    assert (tmp_path / "PART/store.json").exists()


@pytest.mark.slow
def test_head(follow, store):
    follow("head")


@pytest.mark.slow
def test_migrate(follow, built, data_set, tmp_path, capsys):
    write_reference(built, tmp_path / "FEATURES")
    follow("migrate")
    assert (tmp_path / "RUN/evaluation/validation/metrics.json").exists()
    # Nothing that is extracted from sound would be the numbers that it was trained on.
    capsys.readouterr()
    assert main(["predict", str(data_set / "audio"), "--run", "RUN"]) == 2
    assert "trained on imported features" in capsys.readouterr().err


def test_the_parts_of_a_download_are_joined_in_one_way_everywhere(tmp_path, capsys):
    (tmp_path / "PodcastFillers.zip").touch()
    assert main(["datasets", "check", str(tmp_path)]) == 2
    texts = [capsys.readouterr().err]
    texts += [(RECIPES / "podcastfillers.md").read_text()]
    texts += [(RECIPES.parent / "datasets.md").read_text()]
    for text in texts:
        # Not -FF: it leaves files out and says nothing.
        joins = re.findall(r"zip -\S+[^`\n]* --out [\w.]+", text)
        assert joins == ["zip -s 0 PodcastFillers.zip --out whole.zip"], text
        assert re.search(r"unzip (-q )?whole\.zip", text)
