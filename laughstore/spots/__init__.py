"""Spots: stretches where a run says that there is an event and nobody annotated one.

`folder` is what a folder of spots holds, `label_files` how a person sees and corrects it,
`verdicts` what the person said, `review` what that makes of a store's annotations. No sound is
opened here, and nothing is scored: `laughstore spots` puts train's search, extract's sound and
these together.
"""

from .folder import Clip, Spot, SpotFolder, SpotFormat, find_spot_folder
from .review import revise_from_spots
from .verdicts import Verdicts, read_verdicts

__all__ = [
    "Clip",
    "Spot",
    "SpotFolder",
    "SpotFormat",
    "Verdicts",
    "find_spot_folder",
    "read_verdicts",
    "revise_from_spots",
]
