"""Why a recording is left out, as a store keeps it: text that says nothing of this machine.

Stores are published, and those of two copies of one data set are the same bytes.
"""

import re
from pathlib import Path

from laughstore.errors import BadRecording

from .layouts.folders import readable

_BEFORE = r"(?<![^\s'\"(])"
_BEHIND = r"(?:/|(?=[\s'\"):;,])|$)"
"""Of the folder itself, too; a relative one would be any word of that name."""


def reason_of(error: BadRecording, *places: Path) -> str:
    """Return what an error says, with paths that are relative to the data; all of it is UTF-8.

    Args:
        error: about a recording.
        places: folders of the data set or of features, or a manifest. What is in none of them is
            named as the data set itself names it.
    """
    text = str(error)
    for place in places:
        folder = place.parent if place.is_file() else place
        # As they are, as messages show names that are no UTF-8, and as Python shows names quoted.
        whole = (str(folder.absolute()), str(folder))
        shown = (*map(readable, whole), *(repr(name)[1:-1] for name in whole))
        for name in dict.fromkeys((*whole, *shown)):
            if name not in ("/", "."):
                behind = _BEHIND if name.startswith("/") else "/"
                pattern = f"{_BEFORE}{re.escape(name)}{behind}"
                text = re.sub(pattern, lambda found: "" if found[0][-1] == "/" else ".", text)
    # Names that are no UTF-8 come out of Python with halves of surrogate pairs.
    return text.encode("utf-8", "backslashreplace").decode()
