"""Which probes one pass over the frames trains: labels, each with some seeds. No torch here.

A probe is a head with a label and a seed of its own. It is written as a label, behind which
settings of that label may stand: `onset:0.8s`, `detection,event=Music,whose=any`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from laughstore.errors import ConfigError
from laughstore.labels import LabelSpec
from laughstore.timebase import Span

PROBES: Final = "probes"
"""Folder of a run that holds the probes, each a run that can be evaluated."""
_STRANGE: Final = re.compile(r"[^A-Za-z0-9.+-]")
_MAX_NAME: Final = 160
"""Characters; file systems take 255 bytes."""
_SETTINGS: Final = {
    item.name: type(item.default) for item in fields(LabelSpec) if item.name != "label"
}


@dataclass(frozen=True)
class Probe:
    """A head of its own."""

    name: str
    """Also that of its folder."""
    label: LabelSpec
    """What it predicts."""
    seed: int
    """Of its first weights and dropout."""


def probes_of(texts: Sequence[str], base: LabelSpec, seeds: range) -> tuple[Probe, ...]:
    """Return the probes of these labels, all seeds of one label beside each other.

    Args:
        texts: as they were written.
        base: settings of all labels, where a text says nothing else.
        seeds: of each label.

    Raises:
        ConfigError: a text is no label, or two are the same.
    """
    found: list[Probe] = []
    known: dict[str, str] = {}
    for text in texts:
        label, named = read_label(text, base), _STRANGE.sub("-", text)
        for key in (named, repr(label.identity())):
            if key in known:
                raise ConfigError(
                    f"probe {text!r} is the same as, or would be named like, {known[key]!r}; give"
                    " each label once"
                )
            known[key] = text
        if len(named) > _MAX_NAME:
            raise ConfigError(f"probe {text!r} is longer than {_MAX_NAME} characters; shorten it")
        found.extend(Probe(f"{named}-seed{seed}", label, seed) for seed in seeds)
    return tuple(found)


def read_label(text: str, base: LabelSpec) -> LabelSpec:
    """Return the label that a probe's text means.

    Args:
        text: `LABEL[,SETTING=VALUE...]`; settings are those of `LabelSpec`.
        base: for settings that the text does not name.

    Raises:
        ConfigError: a setting is not known, or given twice, or a value cannot work.
    """
    label, *words = (word.strip() for word in text.split(","))
    changes: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        field = name.strip().replace("-", "_")
        if not equals or field not in _SETTINGS:
            raise ConfigError(
                f"probe {text!r}: {word!r} is no setting of a label; write LABEL,SETTING=VALUE with"
                f" {', '.join(_SETTINGS)}"
            )
        if field in changes:
            raise ConfigError(f"probe {text!r} gives {name.strip()} twice; drop one of them")
        changes[field] = _value(_SETTINGS[field], value.strip(), where=f"probe {text!r}: {field}")
    return replace(base, label=label, **changes)  # pyright: ignore[reportArgumentType]


def _value(kind: type, text: str, *, where: str) -> object:
    if kind is bool:
        if text not in ("true", "false"):
            raise ConfigError(f"{where} is {text!r}; write true or false")
        return text == "true"
    if kind is Span:
        return Span(text)
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f"{where} is {text!r}; it must be a number") from error
