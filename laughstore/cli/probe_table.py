"""How many probes ended, as a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .text import aligned, number, percent

if TYPE_CHECKING:
    from train.training.result import ProbeResult


def probe_table(probes: "Sequence[ProbeResult]") -> list[str]:
    """Return the lines of a table: a header, and each probe's best epoch on the validation split.

    The root mean squared error is shown where a probe's label asks for numbers.
    """
    with_errors = any("rmse" in item.best.values for item in probes)
    rows = [["probe", "best epoch", "AP", "base rate", "lift"]]
    for item in probes:
        best = item.best
        rates = [number(best.average_precision), percent(best.base_rate), number(best.lift)]
        rows.append([item.probe.name, f"{item.best_epoch + 1} of {item.epochs}", *rates])
    if with_errors:
        errors = [item.best.values.get("rmse") for item in probes]
        texts = ["" if error is None else number(error) for error in errors]
        rows = [[*row, text] for row, text in zip(rows, ["RMSE", *texts], strict=True)]
    return aligned(rows)
