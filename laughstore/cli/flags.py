"""Flags are frozen dataclasses: their fields are the flags, their docstrings the help.

tyro reads them; this module adds what it does not know: spans, one-line errors, the names that
flags had in earlier scripts.
"""

import contextlib
import io
import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ..folders import is_url
from ..timebase import Span
from . import logs
from .main import EXIT_USAGE

EARLIER_FLAGS = {
    "--batch_size": "use --global-batch, the rows of a step over all processes (512 on 8: 4096)",
    "--transformer_dir": "use --shards STORE/shards (`laughstore import` makes a store of it)",
    "--features_dir": "use --shards STORE/shards (`laughstore import` makes a store of it)",
    "--labels_dir": "labels are made at read time: use --label",
    "--turns_dir": "turns are read with the data set, by `build` or by `import`",
    "--shift_frames": "use --label shift:1f, or --label onset:0.8s for what comes",
    "--learning_rate": "use --lr",
    "--num_epochs": "use --epochs",
    "--output_dir": "use --out",
    "--hf_repo": "use --model",
}
"""Flags of the scripts before laughstore, and what replaces them."""

_SETTINGS = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.HelptextFromCommentsOff,
)
_WIDE = 10_000
_BORDER = re.compile(r"^\s*[│|]|[│|]\s*$")
_PREFIX = re.compile(r"^Error parsing (?:(?:_flags|[\w.]*config[\w.]*): )?", re.IGNORECASE)
_RULE = re.compile(r"^\s*[─-]{3,}\s*$")


@dataclass(frozen=True)
class CommonFlags:
    """Flags that every command has."""

    json: bool = False
    """Print the result as one JSON object on stdout."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Tell more on stderr."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Tell nothing on stderr but errors."""
    debug: bool = False
    """Show where in the code an error comes from."""

    def configure_logging(self) -> None:
        """Send the packages' messages to stderr."""
        logs.start(verbose=self.verbose, quiet=self.quiet)


_registry = ConstructorRegistry()


@_registry.primitive_rule
def _span(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Span] | None:
    if info.type is not Span:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="SPAN",
        instance_from_str=lambda words: Span(words[0]),
        is_instance=lambda value: isinstance(value, Span),
        str_from_instance=lambda span: [span.text],
    )


@_registry.primitive_rule
def _span_or_word(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Span | str] | None:
    kinds = set(get_args(info.type))
    word = next((word for word in ("off", "auto") if kinds == {Span, Literal[word]}), None)
    if word is None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"SPAN|{word}",
        instance_from_str=lambda words: word if words[0] == word else Span(words[0]),
        is_instance=lambda value: value == word or isinstance(value, Span),
        str_from_instance=lambda value: [str(value)],
    )


@_registry.primitive_rule
def _number_or_none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[float | None] | None:
    """Of a flag that may be left away; tyro's own rule tells of all types it tried."""
    if set(get_args(info.type)) != {float, type(None)}:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=lambda words: float(words[0]),
        is_instance=lambda value: value is None or isinstance(value, float),
        str_from_instance=lambda value: [str(value)],
    )


@_registry.primitive_rule
def _path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """Paths with `~` expanded: shells leave it alone in `--store=~/x`."""
    if info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: _folder_or_file(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


@_registry.primitive_rule
def _path_or_url(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path | str | None] | None:
    if info.type not in (Path | str, Path | str | None):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH|URL",
        instance_from_str=lambda words: path_or_url(words[0]),
        is_instance=lambda value: value is None or isinstance(value, Path | str),
        str_from_instance=lambda value: [str(value)],
    )


@_registry.primitive_rule
def _path_or_none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path | None] | None:
    """Of a flag that may be left away; tyro's own rule hides what is wrong with a path."""
    if set(get_args(info.type)) != {Path, type(None)}:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: _folder_or_file(words[0]),
        is_instance=lambda value: value is None or isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


def _folder_or_file(text: str) -> Path:
    if is_url(text):
        # What may hold a password or a signature is not shown.
        shown = f"{text.partition('://')[0]}://..." if re.search("[@?#]", text) else text
        raise ValueError(
            f"{shown} is a URL, and a path of this machine is needed here; `laughstore export URL"
            " --out FOLDER` makes a copy of a store"
        )
    return Path(text).expanduser()


def parse[T](kind: type[T], command: str, arguments: Sequence[str], description: str) -> T:
    """Return the flags of a command as an instance of its dataclass.

    Args:
        kind: dataclass of the flags.
        command: name of the command.
        arguments: words behind it.
        description: what the command does, for its help.

    Raises:
        SystemExit: 0 after printing the help; 2 after one line about a wrong flag.
    """
    for word in arguments:
        name = word.partition("=")[0]
        if name in EARLIER_FLAGS:
            _usage_error(command, f"{name} is a flag of the earlier scripts; {EARLIER_FLAGS[name]}")
    errors = io.StringIO()
    settings: tuple[Any, ...] = _SETTINGS  # Any: tyro's markers have no common type
    wants_help = bool({"-h", "--help"} & set(arguments))
    try:
        with _registry, contextlib.redirect_stderr(errors), _width(None if wants_help else _WIDE):
            return tyro.cli(
                kind,
                args=list(arguments),
                prog=f"laughstore {command}",
                description=description,
                config=settings,
            )
    except SystemExit as error:
        if error.code != EXIT_USAGE:  # after the help, or a signal that came meanwhile
            raise
        _usage_error(command, _one_line(errors.getvalue()))


def path_or_url(text: str) -> Path | str:
    """Return what a command was given to read from: a path with `~` expanded, or a URL as it is."""
    return text if is_url(text) else Path(text).expanduser()


@contextlib.contextmanager
def _width(columns: int | None) -> Iterator[None]:
    """Let tyro write as wide as this: its boxes would break words, and we want one line."""
    before = os.environ.get("COLUMNS")
    if columns is not None:
        os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if columns is not None:
            os.environ.pop("COLUMNS")
            if before is not None:
                os.environ["COLUMNS"] = before


def _usage_error(command: str, message: str) -> NoReturn:
    print(
        f"laughstore {command}: {message} (see: laughstore {command} --help)",
        file=sys.stderr,
    )
    raise SystemExit(EXIT_USAGE)


def _one_line(box: str) -> str:
    """The message of a boxed error of tyro: what stands between its title and its next rule.

    The box is drawn with lines, or, where the terminal knows no Unicode, with rules alone.
    """
    lines = [_BORDER.sub("", line).strip() for line in box.splitlines()[1:]]
    begun = itertools.dropwhile(lambda line: not line or _RULE.match(line), lines)
    message = itertools.takewhile(lambda line: not _RULE.match(line), begun)
    text = " ".join(" ".join(message).split())
    return _PREFIX.sub("", text) or "wrong flags"
