"""Commands in documents: found as they are written there, and run."""

import re
import shutil
from pathlib import Path

_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"^    (\S.*)$", re.MULTILINE)


def indented_lines(document: str) -> list[str]:
    """Lines of code that are no fenced block: commands, in our documents."""
    return _INDENTED.findall(_FENCED.sub("", document))


def fenced(document: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document, re.DOTALL | re.MULTILINE)


def cache_model(folder: Path, repository: str, checkpoint: Path) -> None:
    """Lay out a Hugging Face cache in which a repository is this checkpoint."""
    revision = "0" * 40
    cached = folder / "hub" / f"models--{repository.replace('/', '--')}"
    shutil.copytree(checkpoint, cached / "snapshots" / revision)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(revision)
