"""What can be said of quality without real laughs: the numbers of docs/quality.md.

    uv run python -m benchmarks.quality            # measure, and rewrite the table
    uv run python -m benchmarks.quality --table    # rewrite it from what was measured before
    uv run python -m benchmarks.quality --check    # only say whether it is up to date

All of it is synthetic, from fixed seeds, and takes minutes on two cores.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import machine, versions
from .quality_controls import ControlSettings, run_controls
from .quality_signal import SignalSettings, run_signal
from .report import RESULTS

DOCUMENT = Path(__file__).parent.parent / "docs" / "quality.md"
BEGIN, END = "<!-- quality:begin -->", "<!-- quality:end -->"
RESULT = RESULTS / "quality.json"

Found = dict[str, Any]  # Any: JSON values


@dataclass(frozen=True)
class Claim:
    """What is said, and whether the numbers say it, too."""

    text: str
    numbers: str
    holds: bool


def measure(
    folder: Path,
    signal: SignalSettings | None = None,
    controls: ControlSettings | None = None,
) -> Found:
    """Return everything that is claimed of, as a JSON object."""
    (folder / "controls").mkdir()
    return {
        "name": "quality",
        "machine": machine(),
        "versions": versions(),
        "signal": run_signal(folder / "signal", signal or SignalSettings()),
        "controls": run_controls(folder / "controls", controls or ControlSettings()),
    }


def claims(found: Found) -> list[Claim]:
    """Return what is claimed of these numbers."""
    signal, controls = found["signal"], found["controls"]
    without, cued, muted = (controls[name] for name in ("without_cue", "with_cue", "muted"))
    return [
        Claim(
            "Streamed training ends where scikit-learn does, within 0.01",
            f"AP {signal['average_precision']:.4f}, scikit-learn {signal['scikit_learn']:.4f}"
            f" (base rate {signal['base_rate']:.4f})",
            abs(signal["difference"]) <= 0.01,
        ),
        Claim(
            "Laughs at random times: AP lies inside the circular-shift null",
            f"AP {without['average_precision']:.4f}, null {without['null_mean']:.4f}"
            f" {_interval(without['null_95'])}, p = {without['p']:.3f}"
            f" (base rate {controls['base_rate']:.4f})",
            without["null_95"][0] <= without["average_precision"] <= without["null_95"][1]
            and without["streams"] >= 20,
        ),
        Claim(
            "A tone before each laugh of the same recordings raises AP",
            f"AP {cued['average_precision']:.4f}, by {cued['rise']:.4f}"
            f" {_interval(cued['rise_95'])}; against its own null p ="
            f" {cued['null']['p']:.3f}",
            cued["rise_95"][0] > 0,
        ),
        Claim(
            "Muting every laugh changes no bit of rows that have heard none yet",
            f"{muted['rows_before_a_laugh']:,} rows, {muted['positive']} of them positive: features"
            f" {_same(muted['same_features'])}, scores {_same(muted['same_scores'])};"
            f" {muted['other_rows_that_differ']:,} of the others differ",
            muted["same_features"]
            and muted["same_scores"]
            and min(muted["positive"], muted["other_rows_that_differ"]) > 0,
        ),
    ]


def table(found: Found) -> str:
    """Return the text between the markers of docs/quality.md, without them."""
    rows = ["| claim | numbers | holds |", "|---|---|---|"]
    rows += [
        f"| {item.text} | {item.numbers} | {'yes' if item.holds else '**no**'} |"
        for item in claims(found)
    ]
    signal, controls = found["signal"], found["controls"]
    setup = (
        f"Signal: {signal['train_rows']:,} rows of {signal['dim']} channels,"
        f" {signal['train_positives']} positive, to train on; {signal['validation_rows']:,} held"
        f" out; l2 {signal['l2']:g}, C {signal['C']:.3g}; {signal['epochs']} epochs,"
        f" {signal['steps']} steps. The best epoch, number {signal['best_epoch']}, had"
        f" AP {signal['best_average_precision']:.4f}.\n\n"
        f"Controls: {controls['recordings']} test recordings of {controls['seconds']:g} s,"
        f" {controls['laughs_per_minute']} laughs a minute, {controls['rows']:,} rows that count;"
        f" label {controls['label']}."
    )
    return "\n".join(rows) + f"\n\n{setup}"


def _interval(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:.4f}, {bounds[1]:.4f}]"


def _same(is_same: bool) -> str:
    return "equal" if is_same else "**not equal**"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, rewrite or check. Returns 1 when the table is out of date or a claim fails."""
    parser = argparse.ArgumentParser(description="Measure what docs/quality.md claims.")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--table", action="store_true", help="measure nothing")
    only.add_argument("--check", action="store_true", help="change nothing")
    flags = parser.parse_args(argv)
    if not (flags.table or flags.check):
        with tempfile.TemporaryDirectory(prefix="laughstore-quality-") as folder:
            found = measure(Path(folder))
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    found = json.loads(RESULT.read_text())
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = f"{before}{BEGIN}\n{table(found)}\n{END}{after}"
    failed = [claim.text for claim in claims(found) if not claim.holds]
    for claim in failed:
        print(f"does not hold: {claim}", file=sys.stderr)
    if text != wanted:
        if flags.check:
            print(f"{DOCUMENT.name} is out of date: uv run python -m benchmarks.quality --table")
            return 1
        DOCUMENT.write_text(wanted)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
