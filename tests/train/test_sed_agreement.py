"""Counts of events beside the packages of the field: those of the dependency group `sed`.

Where definitions differ, a test here says how.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from laughstore.bouts import Times
from laughstore.timebase import FRAME_US, US_PER_SECOND
from train.evaluation.events.collar import Collar, EventCounts
from train.evaluation.events.psds import Tolerance, detection_curves
from train.evaluation.events.segments import SegmentRule, Segments, find_segments

CASES = 200
FEW_CASES = 10
GRID_US = 10_000
LABEL = "Laughter"
SPANS_US = 6 * US_PER_SECOND


@contextmanager
def without_warnings() -> Iterator[None]:
    """Those packages use what other packages have deprecated since."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def package(name: str) -> Any:  # Any: a module without types
    """Return one of the group; where it is not installed, the test is skipped with the reason."""
    # dcase_util imports it for its examples alone, and newer setuptools have it no more.
    needs_stand_in = find_spec("pkg_resources") is None
    if needs_stand_in:
        sys.modules["pkg_resources"] = ModuleType("pkg_resources")
    try:
        with without_warnings():
            return import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} cannot be imported ({error}): uv sync --group sed")
    finally:
        if needs_stand_in:
            del sys.modules["pkg_resources"]


def some_times(rng: np.random.Generator, most: int = 6, *, touching: float = 0.3) -> Times:
    """Stretches that do not overlap; such a share of them touch the next; often there are none."""
    num = int(rng.integers(0, most + 1))
    edges = np.sort(rng.choice(SPANS_US // GRID_US, 2 * num, replace=False)).reshape(-1, 2)
    joined = np.flatnonzero(rng.random(max(num - 1, 0)) < touching)
    edges[joined, 1] = edges[joined + 1, 0]
    return Times(edges[:, 0] * GRID_US, edges[:, 1] * GRID_US)


def found_near(rng: np.random.Generator, times: Times) -> Times:
    """The same edges, moved; now and then one is lost or comes between.

    By 3 ms off the grid, so that no distance is exactly a collar.
    """
    edges = np.concatenate([*times, rng.integers(0, SPANS_US // GRID_US, 2) * GRID_US])
    moved = edges + rng.integers(-30, 31, len(edges)) * GRID_US
    kept = np.unique(np.maximum(moved, 0)[rng.random(len(moved)) < 0.9]) + 3000
    pairs = kept[: len(kept) // 2 * 2].reshape(-1, 2)
    return Times(pairs[:, 0], pairs[:, 1])


def segments_of(times: Times) -> Segments:
    return Segments(*times, np.zeros(len(times.start_us), np.float32))


def event_list(times: Times) -> Any:  # Any: a container of dcase_util
    items = [
        {"event_onset": start / 1e6, "event_offset": end / 1e6, "event_label": LABEL}
        for start, end in zip(times.start_us.tolist(), times.end_us.tolist(), strict=True)
    ]
    return package("dcase_util").containers.MetaDataContainer(items)


def counts_of_sed_eval(streams: Sequence[tuple[Times, Times]], collar: Collar) -> EventCounts:
    metrics = package("sed_eval").sound_event.EventBasedMetrics(
        [LABEL],
        t_collar=collar.onset_us / 1e6,
        percentage_of_length=collar.offset_share,
        event_matching_type="optimal",
    )
    with without_warnings():
        for ours, reference in streams:
            metrics.evaluate(event_list(reference), event_list(ours))
        found = metrics.class_wise[LABEL]
    return EventCounts(*(int(found[name]) for name in ("Ntp", "Nfp", "Nfn")))


def our_counts(streams: Sequence[tuple[Times, Times]], collar: Collar) -> EventCounts:
    each = [EventCounts.of(segments_of(ours), reference, collar) for ours, reference in streams]
    return sum(each, EventCounts())


def test_counts_with_collars_are_those_of_sed_eval():
    package("sed_eval")
    hits = 0
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        references = [some_times(rng) for _ in range(3)]
        streams = [(found_near(rng, each), each) for each in references]
        width = int(rng.choice([100_000, 200_000, 1_000_000]))
        collar = Collar(width, width, float(rng.choice([0.0, 0.2, 0.5])))
        ours = our_counts(streams, collar)
        assert ours == counts_of_sed_eval(streams, collar)
        hits += ours.hits
    assert hits > 2 * CASES  # else nothing was compared


def test_sed_eval_misses_some_times_that_lie_exactly_on_the_collar():
    """4.5 - 4.3 is more than 0.2 in floats; here times are whole microseconds."""
    package("sed_eval")
    streams = [
        (
            Times(np.array([4_500_000]), np.array([6_000_000])),
            Times(np.array([4_300_000]), np.array([6_000_000])),
        )
    ]
    assert our_counts(streams, Collar()) == EventCounts(1, 0, 0)
    assert counts_of_sed_eval(streams, Collar()) == EventCounts(0, 1, 1)


class Scored:
    """Some streams with scores of few levels, and the bouts in them."""

    def __init__(self, seed: int, num_levels: int, *, touching: float = 0.3) -> None:
        rng = np.random.default_rng(seed)
        self.references = [some_times(rng, touching=touching) for _ in range(3)]
        self.references.append(Times(np.array([0]), np.array([500_000])))  # one, at the least
        self.scores = []
        for reference in self.references:
            t = np.arange(SPANS_US // FRAME_US) * FRAME_US + FRAME_US // 2
            inside = ((t[:, None] >= reference.start_us) & (t[:, None] < reference.end_us)).any(1)
            noise = np.convolve(rng.standard_normal(len(t) + 2), np.ones(3) / 3, "valid")
            level = np.clip((inside + noise + 1) * num_levels / 4, 0, num_levels - 1)
            self.scores.append((np.floor(level) / num_levels).astype(np.float32))

    @property
    def hours(self) -> float:
        return sum(len(score) for score in self.scores) * FRAME_US / US_PER_SECOND / 3600

    @property
    def thresholds(self) -> np.ndarray:
        return np.unique(np.concatenate(self.scores))

    def segments(self, number: int, threshold: float) -> Segments:
        score = self.scores[number]
        return find_segments(np.arange(len(score)), score, SegmentRule(threshold))

    def psds(self, tolerance: Tolerance, *, more_hours: float = 0.0) -> float:
        def finder(number: int):
            return lambda threshold: self.segments(number, threshold)

        streams = [(finder(number), each) for number, each in enumerate(self.references)]
        hours = self.hours + more_hours
        (curve,) = detection_curves(streams, self.thresholds, hours=hours, tolerances=[tolerance])
        return curve.score(tolerance.max_false_alarms_per_hour)


def tolerance_for(rng: np.random.Generator) -> Tolerance:
    detection, truth = rng.choice([0.1, 0.3, 0.5, 0.7], 2).tolist()
    return Tolerance(detection, truth, float(rng.choice([300.0, 1000.0, 4000.0])))


def test_psds_is_that_of_sed_scores_eval():
    """At all thresholds that there are. It refuses reference events that touch."""
    module = package("sed_scores_eval")
    with without_warnings():
        scores = import_module("sed_scores_eval.base_modules.scores")
    found = []
    for seed in range(CASES):
        num_levels = int(np.random.default_rng(seed).integers(2, 40))
        scored = Scored(seed, num_levels, touching=0)
        tolerance = tolerance_for(np.random.default_rng(seed))
        edges = np.arange(SPANS_US // FRAME_US + 1) * (FRAME_US / US_PER_SECOND)
        keys = [f"s{number}" for number in range(len(scored.scores))]
        with without_warnings():
            value, *_ = module.intersection_based.psds(
                scores={
                    key: scores.create_score_dataframe(
                        score[:, None].astype(np.float64), edges, [LABEL]
                    )
                    for key, score in zip(keys, scored.scores, strict=True)
                },
                ground_truth={
                    key: [
                        (start / 1e6, end / 1e6, LABEL)
                        for start, end in zip(*(part.tolist() for part in each), strict=True)
                    ]
                    for key, each in zip(keys, scored.references, strict=True)
                },
                audio_durations=dict.fromkeys(keys, SPANS_US / 1e6),
                dtc_threshold=tolerance.detection,
                gtc_threshold=tolerance.ground_truth,
                max_efpr=tolerance.max_false_alarms_per_hour,
            )
        assert scored.psds(tolerance) == pytest.approx(value, abs=1e-9)
        found.append(value)
    assert np.ptp(found) > 0.5  # else nothing was compared


def test_psds_is_that_of_psds_eval():
    """It has no answer for a single class, so there is another one, which is found in all cases.

    Then its score is the mean of ours and 1.
    """
    module, pandas = package("psds_eval"), package("pandas")
    other = ("other.wav", 1.0, 2.0, "Other")
    found = []
    for seed in range(FEW_CASES):
        scored = Scored(seed, num_levels=8)
        tolerance = tolerance_for(np.random.default_rng(seed))
        names = [f"s{number}.wav" for number in range(len(scored.scores))]

        def table(each: Sequence[Times | Segments], names: Sequence[str] = names) -> Any:
            rows = [
                (name, start / 1e6, end / 1e6, LABEL)
                for name, times in zip(names, each, strict=True)
                for start, end in zip(times.start_us.tolist(), times.end_us.tolist(), strict=True)
            ]
            columns = ["filename", "onset", "offset", "event_label"]
            return pandas.DataFrame([*rows, other], columns=columns)

        about = [(name, SPANS_US / 1e6) for name in (*names, other[0])]
        with without_warnings():
            judge = module.PSDSEval(
                ground_truth=table(scored.references),
                metadata=pandas.DataFrame(about, columns=["filename", "duration"]),
                dtc_threshold=tolerance.detection,
                gtc_threshold=tolerance.ground_truth,
                cttc_threshold=0.3,
            )
            for threshold in scored.thresholds.tolist():
                judge.add_operating_point(
                    table([scored.segments(number, threshold) for number in range(len(names))])
                )
            value = judge.psds(max_efpr=tolerance.max_false_alarms_per_hour).value
        ours = scored.psds(tolerance, more_hours=SPANS_US / 3600e6)
        assert (ours + 1) / 2 == pytest.approx(value, abs=1e-9), seed
        found.append(ours)
    assert np.ptp(found) > 0.3
