"""`laughstore predict`: events in a user's own audio, found by a run."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..memory import out_of_memory_told
from ..timebase import US_PER_SECOND
from .flags import CommonFlags, parse
from .interrupts import EXIT_INTERRUPTED
from .prediction.config import PredictConfig
from .progress import TerminalProgress
from .text import counted, percent, print_some, program

if TYPE_CHECKING:
    from .prediction.job import Outcome, Predicted

EXIT_LEFT_OUT = 3


@dataclass(frozen=True)
class _Flags:
    """Flags of the command."""

    config: PredictConfig
    common: CommonFlags


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "predict",
        arguments,
        "Find events in audio of any length with a trained run: segments with scores as JSON, CSV,"
        " Audacity labels, Praat TextGrid and RTTM, and a plot along time.",
    )
    flags.common.configure_logging()
    bar = TerminalProgress(quiet=flags.common.quiet)
    try:
        from .prediction.job import predict

        with out_of_memory_told(
            "the model is called with as many rows and frames as the run's store was built with"
            " (--rows, --chunk-frames of build); free some memory, or give another --device"
        ):
            outcome = predict(flags.config, bar)
    except (KeyboardInterrupt, SystemExit) as error:
        words = [word for word in arguments if word != "--resume"]
        again = f"{program()} {shlex.join(['predict', *words, '--resume'])}"
        bar.message(f"stopped; finished recordings are kept. Go on with:\n  {again}")
        # The last line is the command: no other is printed for what is no error.
        code = error.code if isinstance(error, SystemExit) else EXIT_INTERRUPTED
        raise SystemExit(code) from None
    if flags.common.json:
        _print_json(flags.config, outcome)
    else:
        _print(flags.config, outcome)
    return EXIT_LEFT_OUT if outcome.unusable else 0


def _print(config: PredictConfig, outcome: "Outcome") -> None:
    print(outcome.label)
    print_some("recordings predicted", [_line(item) for item in outcome.predicted])
    if outcome.done_before:
        print(f"{counted(len(outcome.done_before), 'recordings')} done before")
    print_some("files left out", list(outcome.unusable.values()))
    for warning in outcome.warnings:
        print(f"warning: {warning}")
    print(f"predictions: {config.out}")


def _line(item: "Predicted") -> str:
    if item.num_segments is None:
        return f"{item.name}: a value for each frame"
    share = percent(item.segments_us / item.duration_us)
    return (
        f"{item.name}: {counted(item.num_segments, 'segments')},"
        f" {item.segments_us / US_PER_SECOND:.1f} of {item.duration_us / US_PER_SECOND:.1f} s"
        f" ({share})"
    )


def _print_json(config: PredictConfig, outcome: "Outcome") -> None:
    report = {
        "run": str(config.run),
        "out": str(config.out),
        "label": outcome.label,
        "predicted": [
            {
                "recording": item.name,
                "json": str(item.json),
                "segments": item.num_segments,
                "segments_s": item.segments_us / US_PER_SECOND,
                "duration_s": item.duration_us / US_PER_SECOND,
                "warnings": list(item.warnings),
            }
            for item in outcome.predicted
        ],
        "done_before": outcome.done_before,
        "left_out": [
            {"audio": file, "reason": reason} for file, reason in outcome.unusable.items()
        ],
        "warnings": outcome.warnings,
    }
    print(json.dumps(report, indent=2))
