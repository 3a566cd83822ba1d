"""Extract the recordings that this process takes, and write them as units.

In: a plan, and a share of it that gives recordings one by one. Out: files in the store. The model
is loaded when the first recording has been taken.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from laughstore import layout
from laughstore.annotations import write_annotations
from laughstore.buildplan import BuildPlan, PlannedRecording
from laughstore.errors import BadRecording
from laughstore.memory import out_of_memory_told, release_free_memory
from laughstore.progress import Progress
from laughstore.sharing import Share

from .config import BuildConfig
from .features import FeatureFailure, Source, extract_features
from .model import FeatureModel, ModelFiles, load_model
from .numerics import compute_dtype, set_numerics
from .reasons import reason_of
from .roles import Pair
from .stored_annotations import stored_annotations
from .survey import SurveyedRecording
from .text import load_tokenizer, text_stream
from .writer import StoreWriter

logger = logging.getLogger(__name__)


@dataclass
class Extraction:
    """Extracts the recordings that this process takes; the model is loaded for the first."""

    config: BuildConfig
    plan: BuildPlan
    files: ModelFiles | None
    """None for features that no model makes."""
    device: torch.device
    by_id: dict[str, SurveyedRecording]
    progress: Progress
    other_device_kind: str | None = None
    """Of this device, when the store was begun on another."""
    _built: set[str] = field(default_factory=set)
    _model: FeatureModel | None = None
    _encode: Callable[[str], list[int]] | None = None

    @property
    def num_built(self) -> int:
        """Recordings that this process has extracted."""
        return len(self._built)

    def run(self, share: Share) -> None:
        """Extract until there is no recording to take.

        Raises:
            LaughstoreError: memory of this machine or of the GPU was used up.
        """
        numerics = self.plan.spec.how_extracted().numerics
        rows = numerics.slots * self.config.rows_per_slot
        with out_of_memory_told(
            f"each call of the model has {rows} rows (--rows: streams side by side) of"
            f" {numerics.chunk_frames} frames (--chunk-frames); free some memory, or begin another"
            " --store with lower ones: those of a store that was begun stay as they are"
        ):
            self._extract(share)

    def _extract(self, share: Share) -> None:
        first = share.take()
        if first is None:
            return
        self._write_annotations()
        # Annotations of long recordings were read to survey and to write them.
        release_free_memory()
        spec, how = self.plan.spec, self.plan.spec.how_extracted()
        chunks = extract_features(
            self._loaded_model(),
            self._sources(first, share),
            slots=how.numerics.slots,
            chunk_frames=how.numerics.chunk_frames,
            assignments=1 if how.speakers == "mix" else 2,
            stream_order=how.stream_order,
            restart_frames=spec.restart_frames,
        )
        num_frames = sum(item.num_frames for item in (first, *share.left))
        self.progress.begin("extract", num_frames, "frame")
        try:
            # Closed first: its threads and tracks go before the files that were being written.
            with (
                StoreWriter(self.config.store, self.plan, self.other_device_kind) as writer,
                closing(chunks),
            ):
                for item in chunks:
                    if isinstance(item, FeatureFailure):
                        if self.config.strict:
                            raise item.error
                        reason = reason_of(item.error, self.config.dataset)
                        writer.put(replace(item, error=BadRecording(reason)))
                        self._built.discard(item.source.key)
                        self.progress.message(f"left out: {reason}")
                        continue
                    writer.put(item)
                    self._built.add(item.source.key)
                    if item.source.first_assignment == 0:
                        self.progress.advance(item.features.shape[1])
        finally:
            self.progress.end()
        release_free_memory()  # the commit reads all annotations again

    def _sources(self, first: PlannedRecording, share: Share) -> Iterator[Source | None]:
        item: PlannedRecording | None = first
        while True:
            if item is None:
                yield None
            else:
                yield from self._sources_of(self.by_id[item.id])
            item = share.take()

    def _sources_of(self, recording: SurveyedRecording) -> Iterator[Source]:
        """Yield one source for each pair of a recording's sides."""
        first_assignment = 0
        for pair in recording.roles.pairs:
            yield Source(
                recording.source.id,
                recording.num_frames,
                partial(pair.open, recording.lengths),
                num_assignments=pair.num_assignments,
                first_assignment=first_assignment,
                text=None if self._encode is None else partial(self._text, recording, pair),
                name=f"{recording.source.name} ({pair.describe()})",
            )
            first_assignment += pair.num_assignments

    def _text(self, recording: SurveyedRecording, pair: Pair) -> NDArray[np.int16]:
        """Return i16[2, T], the text of both sides, from the annotations that the store has."""
        mode = self.plan.spec.how_extracted().text
        assert self._encode is not None
        assert mode != "none"
        annotations = stored_annotations(
            self.config.store,
            recording.annotations_id,
            recording.source.split,
            recording.source.id,
        )
        words = annotations.words or ()
        # Nobody's words give padding in every frame: of silence, and of a mix.
        streams = [
            text_stream(
                words if side.speaker is not None else (),
                side.speaker or "",
                recording.num_frames,
                mode,
                self._encode,
            )
            for side in pair.sides
        ]
        num_overdue = sum(stream.num_overdue for stream in streams)
        if num_overdue:
            logger.warning(
                "%s: %d words were dropped from the text: more than 5 s of tokens waited",
                recording.source.name,
                num_overdue,
            )
        return np.stack([stream.codes for stream in streams])

    def _write_annotations(self) -> None:
        store = self.config.store
        for item in self.plan.recordings:
            path = layout.annotations(item.annotations_id, item.split, item.id)
            if not (store / path).exists():  # named by its content
                write_annotations(store, self.by_id[item.id].annotations(), item.split, item.id)

    def _loaded_model(self) -> FeatureModel:
        if self._model is None:
            spec, numerics = self.plan.spec, self.plan.spec.how_extracted().numerics
            set_numerics(numerics)
            if spec.text != "none":
                assert self.files is not None
                self._encode = load_tokenizer(
                    self.files.tokenizer_path, text_card=int(self.files.config["text_card"])
                )
            self._model = load_model(
                self.files, device=self.device, dtype=compute_dtype(numerics), tap=spec.tap
            )
        return self._model
