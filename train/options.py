"""Settings of which some belong to one choice alone: an argument that nobody reads is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from laughstore.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_options(
    settings: "DataclassInstance", field: str, options: Mapping[str, frozenset[str]]
) -> None:
    """Check that every argument that is given is one that the choice reads.

    Args:
        settings: a choice and all arguments that any choice knows.
        field: that holds the choice.
        options: fields that each choice reads, by its name; of the choices that there are in its
            place, which the message names.

    Raises:
        ConfigError: another field than those differs from its default.
    """
    choice = getattr(settings, field)
    for item in fields(settings):
        value = getattr(settings, item.name)
        if item.name == field or value == item.default or item.name in options[choice]:
            continue
        knowing = [name for name, known in options.items() if item.name in known]
        others = f", or use --{field} {any_of(knowing)}" if knowing else ""
        raise ConfigError(f"{item.name} is {value}: {field} {choice} has none; drop it{others}")


def read_options(
    settings: "DataclassInstance", field: str, options: Mapping[str, frozenset[str]]
) -> dict[str, Any]:  # Any: JSON values
    """Return the choice and the arguments that it reads, by name.

    What it does not read is not written down: a later release may have another default for it.
    """
    choice = getattr(settings, field)
    names = [item.name for item in fields(settings)]
    return {
        name: getattr(settings, name) for name in names if name == field or name in options[choice]
    }


def any_of(names: Sequence[str]) -> str:
    """Return `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
