"""As whom a sound is heard: the pair of sides that a recording is, as in the run's own store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final

from extract.roles import SILENT, Pair, Side
from extract.sound.files import AudioFile, probe_audio
from train.runs.run import Run

from ...errors import ConfigError
from ...timebase import SAMPLE_RATE, US_PER_SECOND
from .inputs import FoundAudio, name_of

MAIN: Final = "main"
OTHER: Final = "other"
"""Names of the two speakers; nobody knows how they are called."""


@dataclass(frozen=True)
class Heard:
    """A recording that predictions are made of."""

    name: str
    folder: PurePath
    """Of its predictions, below the folder of all."""
    pair: Pair
    num_frames: int
    """T, of the longest file that is heard."""
    duration_us: int
    """Of that file."""
    lengths: Mapping[AudioFile, int] | None = field(default=None, repr=False)
    """Audio samples of each file when it was looked at, once at 24 kHz; None: not compared."""
    warnings: tuple[str, ...] = ()
    """What may make its scores other than those that the run was validated with."""

    @property
    def title(self) -> str:
        """Its name behind its folder, for people."""
        return str(self.folder / self.name)

    @property
    def files(self) -> dict[str, Path]:
        """The sound files by their roles: main, other, or mix."""
        roles = ("mix",) if self.pair.sides[0].speaker is None else (MAIN, OTHER)
        paths = [file.path for side in self.pair.sides for file in side.files]
        if roles == ("mix",) and len(paths) > 1:
            roles = (MAIN, OTHER)  # added up to it
        return dict(zip(roles, paths, strict=False))


def hear_file(run: Run, found: FoundAudio) -> Heard:
    """Return how one sound file is heard: as the mix, or as the track of main beside silence.

    Raises:
        BadRecording: it cannot be used.
        ConfigError: the run needs a second track.
    """
    warnings = ()
    if run.spec.speakers != "mix":
        _refuse_lone_main(run, str(found.path))
        warnings = (
            "the run was trained on a track for each speaker, and a lone file is heard as one of"
            " them: if it is a mix of several, its scores are not what was validated (give a file"
            " per speaker, --main FILE --other FILE, or use a run on a store of mixes)",
        )
    return _heard(run, found.path, None, found.name, found.folder, warnings)


def hear_tracks(run: Run, main: Path, other: Path | None) -> Heard:
    """Return how a file per speaker is heard; a run of mixes hears their sum.

    Raises:
        BadRecording: one of them cannot be used.
        ConfigError: the run needs the other track, or both are one.
    """
    if other is None and run.spec.speakers != "mix":
        _refuse_lone_main(run, "--main")
    if other is not None and main.absolute() == other.absolute():
        raise ConfigError(f"--main and --other are both {main}; give a file per speaker")
    warnings = ()
    if other is not None and run.spec.speakers == "mix":
        warnings = (
            "the run was trained on mixes, so both tracks are added up: scores are of anyone's"
            " events",
        )
    return _heard(run, main, other, name_of(main), PurePath(), warnings)


def _heard(
    run: Run,
    main: Path,
    other: Path | None,
    name: str,
    folder: PurePath,
    warnings: tuple[str, ...],
) -> Heard:
    files = [AudioFile(path) for path in (main, other) if path is not None]
    infos = [probe_audio(file) for file in files]
    if run.spec.speakers == "mix":
        pair = Pair((SILENT, Side(None, tuple(files))), 1)
    else:
        sides = [Side(who, (file,)) for who, file in zip((MAIN, OTHER), files, strict=False)]
        asks_both = run.config.label.whose in ("pair", "any")
        second = sides[1] if other is not None else SILENT
        pair = Pair((sides[0], second), 2 if asks_both and other is not None else 1)
    num_samples = max(info.num_samples_24k for info in infos)
    return Heard(
        name,
        folder,
        pair,
        num_frames=max(info.num_frames for info in infos),
        duration_us=num_samples * US_PER_SECOND // SAMPLE_RATE,
        lengths={file: info.num_samples_24k for file, info in zip(files, infos, strict=True)},
        warnings=warnings,
    )


def _refuse_lone_main(run: Run, what: str) -> None:
    if run.config.label.whose == "other":
        raise ConfigError(
            f"{what}: {run.path} predicts events of the other speaker, who is silent beside one"
            " track; give both: --main FILE --other FILE"
        )
