"""What the labels of many probes make of the rows of a run: targets, counts, losses.

The rows that a run of probes reads are all that pass the filter, whatever any label says of them:
so batches do not depend on which probes there are, and each learns what it would learn alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import ConfigError
from laughstore.kinds import TargetArray
from laughstore.labels import LabelSpec

from ..config import TrainConfig
from ..counting import check_both_classes, counts_of
from ..losses import EpochRows, RowLoss, make_loss, target_kind
from ..probe import Probe
from ..streaming.selection import Selection, select
from ..streaming.skip import without_blocks
from .target_table import TargetTable


@dataclass(frozen=True, eq=False)
class ProbeRows:
    """The rows of all probes."""

    probes: tuple[Probe, ...]
    configs: tuple[TrainConfig, ...]
    """Of each probe, as a run of its own."""
    label_of: tuple[int, ...]
    """Of each probe: which label is its own. Seeds share one."""
    losses: tuple[RowLoss, ...]
    """Of each probe."""
    counts: tuple[dict[str, Any], ...]  # Any: JSON values
    """Of each label: counts of the splits that are used."""
    digests: dict[str, str]
    """What the rows of each label are, by split and label."""
    training: TargetTable
    validation: TargetTable

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        training: Selection,
        validation: Selection,
        skip: NDArray[np.int64],
    ) -> Self:
        """Make all labels, each once.

        Args:
            config: of the run.
            training: all rows that the filter lets pass.
            validation: the same of that split.
            skip: i64[K], global numbers of blocks of both splits that are left out as corrupt.

        Raises:
            ConfigError: a label cannot be made, or there is nothing to learn of it.
        """
        probes = config.probes
        labels: dict[str, LabelSpec] = {}
        for probe in probes:
            labels.setdefault(repr(probe.label.identity()), probe.label)
        kinds = [target_kind(label) for label in labels.values()]
        shape = kinds.count("classes"), kinds.count("numbers")
        tables = [TargetTable(rows, *shape) for rows in (training, validation)]
        counts: list[dict[str, Any]] = []
        epochs: list[EpochRows] = []
        digests: dict[str, str] = {}
        for label in labels.values():
            selections: list[Selection] = []
            for rows, table in zip((training, validation), tables, strict=True):
                selection = select(rows.index, rows.split, label, config.filter)
                selection = without_blocks(selection, skip)
                check_both_classes(selection, f"label {label.describe()}")
                table.add(selection)
                digests[f"{rows.split} rows of {label.describe()}"] = selection.targets_digest
                selections.append(selection)
            counts.append(counts_of(*selections))
            epochs.append(EpochRows.of(selections[0], None))
        places = {key: number for number, key in enumerate(labels)}
        label_of = tuple(places[repr(probe.label.identity())] for probe in probes)
        configs = tuple(config.of_probe(probe) for probe in probes)
        losses = [
            make_loss(own.loss, epochs[number])
            for own, number in zip(configs, label_of, strict=True)
        ]
        return cls(probes, configs, label_of, tuple(losses), tuple(counts), digests, *tables)

    def check_same(self, was: Mapping[str, str]) -> None:
        """Raise a ConfigError unless labels are made of the same rows as when a run was saved."""
        differ = [name for name, mine in self.digests.items() if was.get(name) != mine]
        if differ:
            raise ConfigError(
                f"{', '.join(differ)} are others than when the run was saved; restore the store or"
                " the annotations, or train into another --out"
            )

    def validated(
        self, frames: NDArray[np.int64], number: int
    ) -> tuple[TargetArray, NDArray[np.bool_]]:
        """Return (y u1[N] or f4[N], counted bool[N]) of validation rows for one probe.

        Args:
            frames: i64[N] global frame ids.
            number: of the probe.
        """
        return self.validation.column(frames, self.label_of[number])
