"""A run opened to predict with: its head, and the model that its features were made by.

Only features of the run's own spec can be scored, so the model's weights are hashed and compared
with what the run remembers before anything is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from extract.logmel import LOGMEL_SHA256
from extract.model import FeatureModel, ModelFiles, feature_dim, load_model, resolve_model
from extract.model_checks import refuse_unsupported
from extract.numerics import compute_dtype, computing_as
from extract.settings import choose_device
from extract.text import load_tokenizer
from train.probe import PROBES
from train.runs.run import Run
from train.runs.trained import Trained

from ...errors import ConfigError, SpecMismatch
from ...label_spec import LabelSpec
from ...spec import EXTRACTOR_VERSION, FeatureSpec, HowExtracted

Encode = Callable[[str], list[int]]
"""Text to tokens."""


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run with its head and the networks that make its features, on one device."""

    run: Run
    trained: Trained
    """Its model stands on the device."""
    features: FeatureModel
    encode: Encode | None
    """Of the run's text stream; None where it hears no words."""

    @property
    def spec(self) -> FeatureSpec:
        """Of the features."""
        return self.run.spec

    @property
    def how(self) -> HowExtracted:
        """How the features are made."""
        return self.spec.how_extracted()

    @property
    def label(self) -> LabelSpec:
        """What the head was asked."""
        return self.run.config.label

    @property
    def hears_mix(self) -> bool:
        """Whether it was trained on mixes of all speakers."""
        return self.spec.speakers == "mix"

    @property
    def slot_assignments(self) -> int:
        """Assignments of every slot, as the store was built with."""
        return 1 if self.hears_mix else 2

    def num_assignments(self, *, has_other: bool) -> int:
        """Return how many assignments of a pair answer the run's question.

        Two where it does not matter who is main: the answer is the mean of both, as in evaluations.

        Args:
            has_other: whether there is sound of a second speaker.
        """
        asks_both = self.label.whose in ("pair", "any") and not self.hears_mix
        return 2 if asks_both and has_other else 1


def read_run(path: Path) -> Run:
    """Return a run that predictions can be made with.

    Raises:
        NotFound: there is none.
        ConfigError: it holds probes, of which one has to be named.
        SpecMismatch: its features were imported, or are of another release's extractor.
        CorruptData: its files were altered.
    """
    run = Run.open(path)
    if run.config.probe:
        names = ", ".join(probe.name for probe in run.config.probes[:3])
        raise ConfigError(
            f"{path} holds {len(run.config.probes)} probes ({names}, ...): predict with one of"
            f" them, {path / PROBES / run.config.probes[0].name}"
        )
    if run.spec.is_imported:
        raise SpecMismatch(
            f"{path} was trained on imported features, and what is extracted here would not be the"
            " same numbers; build a store from the recordings, and train on that"
        )
    if run.spec.extractor_version != EXTRACTOR_VERSION:
        raise SpecMismatch(
            f"{path} was trained on features of another extractor (extractor_version:"
            f" {run.spec.extractor_version}, this release has {EXTRACTOR_VERSION}); use the release"
            " that built its store"
        )
    return run


def open_run(
    run: Run, trained: Trained, *, model: str | None = None, device: str = "auto"
) -> OpenedRun:
    """Return a run with all that it predicts with.

    Args:
        run: from `read_run`.
        trained: a checkpoint of it, from `load_trained`.
        model: directory or repository with the model of its features; None: as the run says.
        device: cpu, cuda, cuda:N or auto.

    Raises:
        NotFound: no such model.
        ConfigError: the model has to be named, or cannot be used; no such device.
        SpecMismatch: it is another model than that of the run's features.
        CorruptData: a file was altered or cut.
    """
    spec, chosen = run.spec, choose_device(device)
    files = _model_files(run, model)
    numerics = spec.how_extracted().numerics
    with computing_as(numerics):
        features = load_model(files, device=chosen, dtype=compute_dtype(numerics), tap=spec.tap)
    encode = None
    if spec.text != "none":
        assert files is not None, "controls hear no text"
        encode = load_tokenizer(files.tokenizer_path, text_card=int(files.config["text_card"]))
    trained.model.to(chosen)
    return OpenedRun(run, trained, features, encode)


def _model_files(run: Run, model: str | None) -> ModelFiles | None:
    """Return the files of the model of a run's features, once they have been compared with it."""
    spec = run.spec
    if spec.tap == "logmel":
        if model is not None:
            raise ConfigError(f"model is {model}: {run.path} hears log-mel frames; drop it")
        files, digest, name = None, LOGMEL_SHA256, "log-mel frames of this release"
    else:
        if model is None and spec.revision is None:
            raise ConfigError(
                f"{run.path} was trained on features of a model from a directory; give that one:"
                " --model DIR"
            )
        name = model or spec.model
        files = resolve_model(name, spec.revision if name == spec.model else None)
        refuse_unsupported(files)
        digest = files.weights_sha256(spec.tap, text=spec.text != "none")
    found = {"dim": feature_dim(files, spec.tap), "weights_sha256": digest}
    wanted = {"dim": spec.dim, "weights_sha256": spec.weights_sha256}
    differing = [
        f"{key}: {found[key]}, {wanted[key]}" for key in found if found[key] != wanted[key]
    ]
    if differing:
        raise SpecMismatch(
            f"{name} is not the model of the features that {run.path} was trained on"
            f" ({'; '.join(differing)}); give the one that its store was built with: --model DIR"
        )
    return files
