"""What runs differ in: their settings side by side, and which of them differ by a seed alone.

Enters: runs as opened. Leaves: names and JSON values. What follows from a setting (counts of rows,
the groups of a fold) is not listed beside it, nor where a run lies.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ..runs.run import Run

type Setting = str | int | float | bool | None
"""A JSON value that is no object and no list."""

_LEFT_OUT: Final = frozenset({"out", "probe", "seeds"})
"""Of a config: where the run lies; what a run of many probes alone has."""
_ABOUT: Final = ("generation", "annotations_sha256", "order_seed", "probe_of")
_OF_A_SEED: Final = frozenset({"seed", "order_seed", "probe_of"})
"""What runs that differ by a seed alone may differ in."""


def settings_of(run: Run) -> dict[str, Setting]:
    """Return the settings of a run by name, those of groups as `label.kind`."""
    config = run.config.to_json()
    found = dict(_flat({name: value for name, value in config.items() if name not in _LEFT_OUT}))
    found |= _flat({"features": run.spec.to_json()})
    found |= _flat({name: run.about.get(name) for name in _ABOUT})
    found["index_id"] = run.index_id
    found["skipped_blocks"] = len(run.skip)
    return found | dict(_flat({"versions": run.about.get("versions", {})}))


def differing(settings: Sequence[Mapping[str, Setting]]) -> dict[str, tuple[Setting, ...]]:
    """Return the settings that are not the same in all of R runs: R values each, by name.

    What a run does not have is None there, as what is not set.
    """
    names = dict.fromkeys(name for each in settings for name in each)
    columns = {name: tuple(each.get(name) for each in settings) for name in names}
    return {name: values for name, values in columns.items() if len(set(map(repr, values))) > 1}


def seed_groups(settings: Sequence[Mapping[str, Setting]]) -> list[list[int]]:
    """Return the numbers of runs that differ by a seed alone: groups of two runs or more."""
    groups: dict[str, list[int]] = {}
    for number, each in enumerate(settings):
        kept = {name: each[name] for name in sorted(each) if name not in _OF_A_SEED}
        groups.setdefault(repr(kept), []).append(number)
    return [
        group
        for group in groups.values()
        if len(
            {
                repr([settings[number].get(name) for name in ("seed", "order_seed")])
                for number in group
            }
        )
        > 1
    ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Setting]]:  # Any: JSON
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", value
