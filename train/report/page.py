"""The shell of a page: one HTML file with its styles, scripts, plotting library and numbers inside.

Enters: a template of `assets/`, what it shows, and the numbers that its scripts draw. Leaves: the
page as text. Names and labels of users' data stand in pages, and may hold anything: templates
escape all they are given, numbers are JSON of which no browser takes a part for a tag, and the
page's own policy lets only those scripts run that were put in here, and loads nothing from
anywhere.

A page of another kind extends `base.html`, takes tables and charts from `parts.html`, and is made
by `render`.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from .charts import Chart

_PACKAGE: Final = "train.report"
_ASSETS: Final = "assets"
_BASE_SCRIPT: Final = "page.js"
_POLICY: Final = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:;"
    " media-src blob:; base-uri 'none'; form-action 'none'"
)
"""Styles are set by the plotting library as it draws; media are made of what the page holds."""


def render(
    template: str,
    *,
    title: str,
    charts: Sequence[Chart] = (),
    data: Mapping[str, Any] | None = None,  # Any: JSON values
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    **content: object,
) -> str:
    """Return a page.

    Args:
        template: name of one of `assets/` that extends `base.html`.
        title: of the window.
        charts: that `page.js` draws where the template places them (`parts.chart`).
        data: JSON object that the page's own scripts read, as `laughstore.data`.
        scripts: names of these in `assets/`, in the order in which they run.
        styles: names of more style sheets in `assets/`.
        content: what else the template shows.
    """
    told = {**(data or {}), "charts": {item.name: item.to_json() for item in charts}}
    sources = [get_plotlyjs(), *map(asset, (_BASE_SCRIPT, *scripts))]
    inline = [_inline(source) for source in sources]
    policy = _POLICY.format(scripts=" ".join(f"'sha256-{_digest(item)}'" for item in inline))
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            policy=policy,
            css=Markup("\n".join(map(asset, ("page.css", *styles)))),
            json=Markup(script_json(told)),
            scripts=[Markup(item) for item in inline],
            charts={item.name: item for item in charts},
            **content,
        )
    )


def asset(name: str) -> str:
    """Return the text of a file of `assets/`."""
    return (files(_PACKAGE) / _ASSETS / name).read_text("utf-8")


def script_json(value: object) -> str:
    """Return JSON that can stand in a `<script type="application/json">`, whatever is in it.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # Inside strings alone, as JSON has these characters nowhere else.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _inline(source: str) -> str:
    """A script as browsers read it out of a page, so that its digest is theirs."""
    text = source.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _digest(script: str) -> str:
    return b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(_PACKAGE, _ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
