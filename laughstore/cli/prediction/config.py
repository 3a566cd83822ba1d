"""What can be asked of predictions. No torch here: `laughstore predict --help` reads this module.

The attributes' docstrings are the help of the command line.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ...errors import ConfigError
from ...timebase import Span


@dataclass(frozen=True)
class PredictConfig:
    """Predictions: which run, on which sound, into which folder.

    Raises:
        ConfigError: fields do not go together.
    """

    run: Path
    """Folder of the run."""
    audio: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Sound files of any length, or folders of them; each is the mix of all, or the track of one
    speaker, as the run was trained."""
    main: Path | None = None
    """Track of the speaker who is main, in the place of AUDIO."""
    other: Path | None = None
    """Track of the other speaker; goes with --main."""
    transcript: Path | None = None
    """Words of the one recording, for a run that hears text: .json as of PodcastFillers, or .csv,
    .TextGrid, ... with a span for each word, and its speaker (main, other)."""
    out: Path = Path("predictions")
    """Folder of the predictions; it must not exist yet."""
    format: str | None = None
    """Some of json, csv, audacity, textgrid, rttm, png, with commas between (default: all that the
    run's label has); json is always written."""
    frames: bool = False
    """Write the score of each frame, too: in the JSON, and as frames/NAME.csv."""
    model: str | None = None
    """Directory of the model that the run's store was built with (default: the run's repository at
    its commit); its weights are compared with the run's."""
    checkpoint: str = "best"
    """best, last, or the path of a checkpoint."""
    threshold: float | None = None
    """Score from which on a frame belongs to a segment (default: as validation chose it)."""
    threshold_by: str | None = None
    """Use the threshold that `laughstore evaluate --threshold-by` chose on validation by this rule:
    f1 (default), youden, precision@X, recall@X or fa-per-hour@X."""
    min_duration: Literal["auto"] | Span = "auto"
    """Shorter segments are dropped, after joining; auto: as evaluate fitted it on validation, else
    0.2s."""
    merge_gap: Literal["auto"] | Span = "auto"
    """Segments no further apart than this are one; auto: as evaluate fitted it, else 0.5s."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto (cuda if there is one)."""
    resume: bool = False
    """Go on with the predictions in --out, with the same settings: what is done is passed over."""

    def __post_init__(self) -> None:
        if self.threshold is not None and self.threshold_by is not None:
            raise ConfigError("threshold and threshold_by: give one of them")
        if self.main is not None and self.audio:
            raise ConfigError("AUDIO and --main exclude each other; give one of them")
        if self.main is None and self.other is not None:
            raise ConfigError("--other goes with --main, the track of the speaker who is main")
        if self.main is None and not self.audio:
            raise ConfigError("nothing to predict; give AUDIO, or --main FILE")
