"""Find the command, run it, and turn every ending into one line and an exit code.

Exit codes: 0 done; 1 failed, or what was printed could not be written; 2 usage; 3 finished, but
recordings were left out or faults found; 130 Ctrl-C; 143 SIGTERM.
"""

import difflib
import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from .. import __version__
from ..errors import ConfigError, LaughstoreError
from ..files import is_passing
from ..memory import out_of_memory_told
from . import logs
from .interrupts import EXIT_INTERRUPTED, signals_raised

EXIT_FAILED = 1
EXIT_USAGE = 2
MORE_MEMORY = "free some memory, or use a machine with more"
"""What to do where no command has a better advice."""
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your quota of the disk is used up"}

COMMANDS = {
    "demo": "Make a small synthetic corpus, build, train, evaluate and plot: all parts, offline.",
    "datasets": "datasets check PATH: tell what a data set holds, lacks, and what is wrong.",
    "build": "Extract features from recordings into a store.",
    "import": "Make a store of features that the earlier scripts wrote.",
    "labels": "Tell which rows of a store a label makes positive, and draw them along time.",
    "stats": "Compute channel statistics of a store, which training standardises by.",
    "train": "Train a head on the shards of a store.",
    "evaluate": "Score a run on a split and plot it along time.",
    "compare": "Compare runs on a split: paired differences, and what the runs differ in.",
    "report": "Write an evaluation as one page: numbers, worst errors, timelines, sound.",
    "predict": "Find events in a user's own audio with a run.",
    "spots": "Clip the highest-scored stretches that nobody annotated, to be corrected.",
    "inspect": "Tell what is in a store, its shards or a run.",
    "annotate": "Give a store other annotations, as a new generation; features stay.",
    "add": "Append recordings to a store, as a new generation.",
    "export": "Write a part of a store as a store of its own.",
    "push": "Send a store to a bucket or the hub, or what is missing there.",
    "gc": "Remove what no kept generation of a store names.",
    "verify": "Compare every file of a store with what was written; tell every fault.",
    "tiny-checkpoint": "Write a small random Moshi checkpoint, for tests and trials.",
}
"""Each is a module of this package, `module_of`, with `run(arguments) -> exit code`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line. Returns the exit code, once what was printed is out."""
    exit_code = _command_line(argv)
    for stream in (sys.stdout, sys.stderr):
        exit_code = _flush(stream, exit_code)
    return exit_code


def _command_line(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _answer(_overview())
    if arguments[0] == "--version":
        return _answer(f"laughstore {__version__}")
    command, *rest = arguments
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see: laughstore --help"
        return _fail(f"no command {command!r}; {hint}", EXIT_USAGE)
    return _run(command, rest)


def module_of(command: str) -> str:
    """Return the module of a command: its name with `_`, unless that is a word of the language."""
    name = "import_features" if command == "import" else command.replace("-", "_")
    return f"{__package__}.{name}"


def _run(command: str, arguments: list[str]) -> int:
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files are bytes, and may hold what the terminal cannot show.
            stream.reconfigure(errors="backslashreplace")
    try:
        with signals_raised(), out_of_memory_told(MORE_MEMORY):
            check_packages()
            return import_module(module_of(command)).run(arguments)
    except SystemExit as error:  # of the parser of flags, or of SIGTERM
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    except KeyboardInterrupt:
        # A command that can go on has said how; see each command's own message.
        return _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # whoever read has read enough, as in `laughstore ... | head`
        return EXIT_FAILED
    except (LaughstoreError, OSError) as error:
        if debug:
            raise
        return _fail(one_line(error), getattr(error, "exit_code", EXIT_FAILED))
    finally:
        logs.stop()


def one_line(error: LaughstoreError | OSError) -> str:
    """Return what happened, where and what to do, of an error that ends a command."""
    text = " ".join(str(error).split())
    if isinstance(error, LaughstoreError):
        return text
    if error.errno in _FULL:
        what = _FULL[error.errno]
        return f"{what} ({text}); free some space and run the same command again"
    if error.errno == errno.EFBIG:
        return (
            f"a file would be larger than it may be here ({text}); raise the limit (ulimit -f) or"
            " use another file system, and run the same command again"
        )
    if error.filename is not None and error.strerror is not None:
        text = f"{error.filename}: {error.strerror.lower()}"
    if is_passing(error):
        return (
            f"{text}, which is of the disk, its server or this machine; run the same command again"
            " when that is well"
        )
    return text


def _fail(message: str, exit_code: int) -> int:
    with suppress(OSError):  # nobody takes it
        print(f"laughstore: {message}", file=sys.stderr)
    return exit_code


def _flush(stream: TextIO | None, exit_code: int) -> int:
    """Write out what was printed. Returns the exit code, 1 instead of 0 where that cannot be.

    Left to the interpreter, it would fail as the process ends, with a traceback and code 120.
    """
    if stream is None:  # closed from the beginning
        return exit_code
    try:
        stream.flush()
    except OSError as error:
        # What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if exit_code != EXIT_FAILED:  # which has been told already
            failed = _unwritten(error)
            return exit_code or failed
    return exit_code


def _answer(text: str) -> int:
    try:
        print(text)
    except OSError as error:  # where Python does not buffer
        return _unwritten(error)
    return 0


def _unwritten(error: OSError) -> int:
    """Say why what was printed is not out, but to who closed the pipe (`laughstore ... | head`)."""
    if not isinstance(error, BrokenPipeError):
        error.filename = "standard output"
        _fail(one_line(error), EXIT_FAILED)
    return EXIT_FAILED


def check_packages() -> None:
    """Refuse to run when the user's own train.py or extract/ hides ours.

    Raises:
        ConfigError: naming the file in the way.
    """
    ours = Path(__file__).resolve().parents[2]
    for name in ("extract", "train"):
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin is None or origin.parent.parent != ours:
            raise ConfigError(
                f"the name {name!r} belongs to {origin or 'another package'}, not to laughstore;"
                " run from another folder, or rename that file"
            )


def _overview() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: laughstore COMMAND ...",
            "",
            "The feature store and streaming trainer for laughter in podcast audio.",
            "",
            *lines,
            "",
            "laughstore COMMAND --help tells a command's flags; --version the version.",
        ]
    )
