"""The table of docs/mixing.md: its numbers are counted right, and are those of today's plan."""

import numpy as np
import pytest

from benchmarks.mixing import Corpus, Mixing, main, of_global_shuffle, of_plan


def test_blocks_recordings_and_sharing_are_those_of_a_count_by_hand() -> None:
    corpus = Corpus(np.array([3, 1, 0, 4]), np.array([0, 0, 1, 2]))
    # Blocks 0 (three rows), 1 (one) and 3 (one); a pad row counts nowhere.
    first = np.array([0, 1, 2, 3, 7, -1])
    second = np.array([4, 5, 6, 7])
    assert corpus.mixing(iter([first])) == Mixing(3, 2, 6 / 5)
    assert corpus.mixing(iter([first, second])) == Mixing(2, 1.5, (6 / 5 + 3) / 2)


def test_a_drawn_corpus_has_the_size_asked_for() -> None:
    corpus = Corpus.drawn(0.01)
    assert abs(int(corpus.counts.sum()) - 2 * 0.01 * 145 * 45_000) < 200
    assert len(np.unique(corpus.recording_of_block)) == 199


def test_more_lanes_and_larger_windows_mix_better_and_never_better_than_the_ideal() -> None:
    corpus = Corpus.drawn(0.05)
    ideal = of_global_shuffle(corpus, 512, 10).sharing
    default = of_plan(corpus, 512, 16, 8, 10).sharing
    assert of_plan(corpus, 512, 16, 1, 10).sharing > 2 * default
    assert of_plan(corpus, 512, 16, 32, 10).sharing < default / 2
    assert of_plan(corpus, 512, 64, 8, 10).sharing < default / 2
    assert default > ideal > 0


@pytest.mark.slow
def test_the_document_has_the_numbers_of_todays_plan() -> None:
    assert main(["--check"]) == 0
