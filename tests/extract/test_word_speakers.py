import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.word_speakers import spoken_us, with_speakers, word_speakers
from laughstore.annotations import Segment, Speaker, Word


def spoken(*segments):
    names = sorted({segment.speaker for segment in segments})
    return tuple(Speaker(name, 1) for name in names), segments


def speakers_of(words, diarized):
    times = np.array(words, np.int64).reshape(-1, 2)
    return word_speakers(times[:, 0], times[:, 1], *diarized)


def test_a_word_belongs_to_the_largest_overlap_and_one_of_no_length_to_its_middle():
    diarized = spoken(Segment(0, 10, "A"), Segment(8, 20, "B"), Segment(30, 40, "A"))
    words = [(5, 9), (7, 14), (20, 30), (9, 9), (20, 20), (40, 40), (19, 31), (8, 10)]
    assert speakers_of(words, diarized) == ["A", "B", None, "A", None, None, "A", "A"]
    assert speakers_of([], diarized) == []
    assert speakers_of(words, spoken()) == [None] * len(words)


@settings(max_examples=200)
@given(
    segments=st.lists(
        st.builds(
            lambda start, length, speaker: Segment(start, start + length, speaker),
            st.integers(0, 60),
            st.integers(-2, 20),
            st.sampled_from("ABC"),
        ),
        max_size=8,
    ),
    words=st.lists(
        st.tuples(st.integers(-5, 80), st.integers(0, 15)).map(lambda w: (w[0], w[0] + w[1])),
        max_size=8,
    ),
)
def test_word_speakers_agree_with_counting_every_microsecond(segments, words):
    diarized = spoken(*segments)
    expected = []
    for start, end in words:
        moments = range(start, max(end, start + 1))
        overlap = {
            name: sum(
                any(s.speaker == name and s.start_us <= t < s.end_us for s in segments)
                for t in moments
            )
            for name in sorted({s.speaker for s in segments})
        }
        best = max(overlap, key=lambda name: overlap[name], default=None)
        expected.append(best if best is not None and overlap[best] else None)
    assert speakers_of(words, diarized) == expected


def test_only_words_of_nobody_get_a_speaker():
    speakers, segments = spoken(Segment(0, 10, "A"), Segment(20, 30, "B"))
    words = [Word(1, 2, "a", None), Word(21, 22, "b", "A"), Word(12, 13, "c", None)]
    assert [word.speaker for word in with_speakers(words, speakers, segments)] == ["A", "A", None]
    assert with_speakers([], speakers, segments) == ()
    assert with_speakers(words, (), ()) == tuple(words)


def test_overlapping_segments_of_one_speaker_count_once():
    segments = [Segment(5, 15, "A"), Segment(0, 10, "A"), Segment(0, 99, "B"), Segment(20, 21, "A")]
    assert spoken_us(segments, "A") == 16
    assert spoken_us(segments, "C") == 0
