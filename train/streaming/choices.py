"""Ways to read that the stream and its command line know by name."""

from typing import Literal

Verify = Literal["always", "first", "never"]
"""When to check a block's CRC-32C: at every read, at the first of this process, or never."""

Preload = Literal["none", "cpu", "gpu"]
"""Where the rows that take part are loaded before they are trained on."""
