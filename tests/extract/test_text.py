"""Pictures of text streams have one sign a frame: `.` padding, `E` its end, else a token.

A word's tokens are its letters here, so `hi` that is said from frame 3 on is drawn `..Ehi`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import sentencepiece
from hypothesis import assume, given
from hypothesis import strategies as st

from extract.text import (
    END_OF_PADDING_ID,
    MAX_QUEUE_TOKENS,
    MAX_WORDS_IN_BRACKETS,
    PADDING_ID,
    TextStream,
    is_tag,
    load_tokenizer,
    text_stream,
)
from laughstore.annotations import Word
from laughstore.errors import ConfigError, CorruptData, LaughstoreError, NotFound
from laughstore.timebase import FRAME_US

Mode = Literal["causal", "aligned"]
SIGNS = {PADDING_ID: ".", END_OF_PADDING_ID: "E"}


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def say(text: str, start_ms: float, end_ms: float, speaker: str | None = "Ann") -> Word:
    return Word(round(start_ms * 1000), round(end_ms * 1000), text, speaker)


def stream(words: Sequence[Word], num_frames: int, mode: Mode) -> TextStream:
    return text_stream(words, "Ann", num_frames, mode, letters)


def picture(codes: np.ndarray) -> str:
    return "".join(SIGNS.get(code) or chr(code) for code in codes.tolist())


def counts(found: TextStream) -> dict[str, int]:
    """The counts that are not 0, by their names without `num_`."""
    fields = (name for name in found.__dataclass_fields__ if name.startswith("num_"))
    return {name[4:]: getattr(found, name) for name in fields if getattr(found, name)}


def drawn(words: Sequence[Word], mode: Mode, num_frames: int = 12) -> tuple[str, dict[str, int]]:
    found = stream(words, num_frames, mode)
    assert found.codes.dtype == np.int16
    assert found.codes.shape == (num_frames,)
    return picture(found.codes), counts(found)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_without_words_all_frames_hold_padding(mode: Mode):
    assert drawn([], mode) == ("............", {})
    assert drawn([], mode, num_frames=0) == ("", {})
    assert drawn([say("hi", 0, 80)], mode, num_frames=0) == ("", {"outside": 1})


@pytest.mark.parametrize("mode", get_args(Mode))
def test_only_the_speakers_words_are_fed_and_counted(mode: Mode):
    words = [say("bob", 80, 160, "Bob"), say("who", 80, 160, None), say("[laugh]", 0, 9, "Bob")]
    assert drawn(words, mode) == ("............", {})


ALIGNED = {
    "a word begins in the frame of its start, and the frame before announces it": (
        [say("abc", 320, 600)],
        "...Eabc.....",
        {"words": 1},
    ),
    "the last microsecond of a frame belongs to it": (
        [say("a", 319.999, 500), say("b", 560, 600), say("c", 800.001, 900)],
        "..Ea..Eb.Ec.",
        {"words": 3},
    ),
    "a word in the first frame cannot be announced": (
        [say("ab", 0, 100)],
        "ab..........",
        {"words": 1},
    ),
    "words that follow at once are not announced": (
        [say("abc", 160, 300), say("de", 400, 500)],
        ".Eabcde.....",
        {"words": 2},
    ),
    "one frame of padding between two words is enough": (
        [say("abc", 160, 300), say("de", 480, 500)],
        ".EabcEde....",
        {"words": 2},
    ),
    "a word takes the place of what is left of the word before": (
        [say("abcdef", 160, 700), say("xy", 320, 400)],
        ".Eabxy......",
        {"words": 2},
    ),
    "of two words in one frame the first is lost": (
        [say("abc", 160, 200), say("x", 230, 240), say("pq", 239.999, 300)],
        ".Epq........",
        {"words": 1, "replaced": 2},
    ),
    "words of equal times keep their order": (
        [say("ab", 160, 200), say("xy", 160, 200)],
        ".Exy........",
        {"words": 1, "replaced": 1},
    ),
    "words are sorted by start": (
        [say("xy", 480, 700), say("ab", 80, 900)],
        "Eab..Exy....",
        {"words": 2},
    ),
    "a word of no length or less was not in the training": (
        [say("abcd", 80, 400), say("x", 160, 160), say("y", 240, 200)],
        "Eabcd.......",
        {"words": 1, "empty": 2},
    ),
    "a word runs past the end": (
        [say("abc", 880, 999)],
        "..........Ea",
        {"words": 1},
    ),
    "a word behind the end is not announced": (
        [say("abc", 960, 999), say("x", 10**9, 10**10)],
        "............",
        {"outside": 2},
    ),
    "a word that begins before time 0 starts in frame 0": (
        [say("old", -500, -0.001), say("ab", -90, 0), say("cd", -80, 100)],
        "cd..........",
        {"words": 1, "outside": 1, "replaced": 1},
    ),
    "tags neither speak nor cut a word": (
        [say("abcd", 160, 700), say("haha", 240, 500), say("[laughter]", 320, 400)],
        ".Eabcd......",
        {"words": 1, "tags": 2},
    ),
    "a word without text does not cut either": (
        [say("abcd", 160, 700), say(" \t", 240, 500), say("", 320, 400)],
        ".Eabcd......",
        {"words": 1, "empty": 2},
    ),
    "white space around a word is not said": (
        [say(" ab\n", 160, 700)],
        ".Eab........",
        {"words": 1},
    ),
}
CAUSAL = {
    "a word is announced in the frame of its end and said from the next": (
        [say("abc", 0, 320)],
        "....Eabc....",
        {"words": 1},
    ),
    "a word may end in the last microsecond of a frame": (
        [say("a", 0, 319.999), say("b", 400, 640.001)],
        "...Ea...Eb..",
        {"words": 2},
    ),
    "a word that ends in the first frame": (
        [say("ab", 0, 79.999)],
        "Eab.........",
        {"words": 1},
    ),
    "a word that ends while another is said is not announced and waits": (
        [say("abcd", 0, 90), say("xy", 90, 250)],
        ".Eabcdxy....",
        {"words": 2},
    ),
    "a word that ends in the frame of the last token follows it": (
        [say("abc", 0, 90), say("xy", 90, 399.999)],
        ".Eabcxy.....",
        {"words": 2},
    ),
    "a word that ends in the frame after the last token is announced": (
        [say("abc", 0, 90), say("xy", 90, 400)],
        ".EabcExy....",
        {"words": 2},
    ),
    "none is dropped, first in first out": (
        [say("abc", 0, 90), say("de", 90, 100), say("f", 95, 159), say("gh", 100, 170)],
        ".Eabcdefgh..",
        {"words": 4},
    ),
    "words queue by their end, not by their start": (
        [say("ab", 0, 330), say("xy", 200, 310), say("p", 100, 305), say("q", 0, 10)],
        "Eq.Epxyab...",
        {"words": 4},
    ),
    "words of equal ends keep their order": (
        [say("ab", 90, 160), say("xy", 0, 160)],
        "..Eabxy.....",
        {"words": 2},
    ),
    "a word of no length has its end": (
        [say("ab", 160, 160), say("x", 500, 499)],
        "..Eab.......",
        {"words": 1, "empty": 1},
    ),
    "a word runs past the end": (
        [say("abc", 0, 800)],
        "..........Ea",
        {"words": 1},
    ),
    "a word that ends in the last frame is announced and never said": (
        [say("abc", 0, 880)],
        "...........E",
        {"outside": 1},
    ),
    "a word behind the end": (
        [say("abc", 0, 960), say("x", 10**9, 10**10)],
        "............",
        {"outside": 2},
    ),
    "a word whose turn comes behind the end": (
        [say("abcdef", 0, 480), say("x", 0, 500), say("yz", 0, 800)],
        "......Eabcde",
        {"words": 1, "outside": 2},
    ),
    "a word that was over before time 0": (
        [say("old", -500, -0.001), say("ab", -90, 0)],
        "Eab.........",
        {"words": 1, "outside": 1},
    ),
    "tags and empty words do not queue": (
        [say("Ha-ha!", 0, 80), say("(laughs)", 0, 80), say(" ", 0, 80), say("ab", 0, 160)],
        "..Eab.......",
        {"words": 1, "tags": 2, "empty": 1},
    ),
}


@pytest.mark.parametrize(("words", "expected", "expected_counts"), ALIGNED.values(), ids=ALIGNED)
def test_aligned(words: list[Word], expected: str, expected_counts: dict[str, int]):
    assert drawn(words, "aligned") == (expected, expected_counts)


@pytest.mark.parametrize(("words", "expected", "expected_counts"), CAUSAL.values(), ids=CAUSAL)
def test_causal(words: list[Word], expected: str, expected_counts: dict[str, int]):
    assert drawn(words, "causal") == (expected, expected_counts)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_words_in_a_bracket_that_an_earlier_word_opened_are_tags(mode: Mode):
    def fed(*texts: str) -> str:
        words = [say(text, 800 * i + 80, 800 * i + 160) for i, text in enumerate(texts)]
        found = stream(words, 10 * len(words) + 9, mode)
        assert found.num_words + found.num_tags == len(texts)
        return picture(found.codes).replace(".", "").replace("E", " ").strip()

    assert fed("so", "[audience", "laughing", "loudly]", "then") == "so then"
    assert fed("so", "(", "laughs", ")", "then") == "so then"
    assert fed("so", "yeah(he", "laughs)", "then") == "so then"
    assert fed("so", "laughs]", "then") == "so then"
    assert fed("so", "[laughs", "[noise]", "then") == "so then"
    assert fed("so", ":(", "then", ":)", "well") == "so then well"
    # Nobody closes it: it was no bracket, and the words behind are fed again.
    behind = [f"w{chr(ord('a') + i)}" for i in range(MAX_WORDS_IN_BRACKETS + 2)]
    assert fed("so", "(laughs", *behind) == "so " + " ".join(behind[MAX_WORDS_IN_BRACKETS:])


def test_brackets_of_other_speakers_hide_nothing():
    words = [say("[audience", 80, 100, "Bob"), say("ab", 160, 200), say("laughs]", 240, 300, "Bob")]
    assert drawn(words, "aligned") == (".Eab........", {"words": 1})


def queue(num_tokens: int) -> list[Word]:
    """Return words that all end in frame 1, of 3 tokens but the last."""
    sizes = [3] * (num_tokens // 3) + [num_tokens % 3] * (num_tokens % 3 > 0)
    return [say("abc"[:size], 0, 80 + i) for i, size in enumerate(sizes)]


def test_a_queue_of_5_s_is_said_and_a_longer_one_dropped_whole():
    assert MAX_QUEUE_TOKENS * FRAME_US <= 5_000_000 < (MAX_QUEUE_TOKENS + 1) * FRAME_US
    said, num_words = drawn(queue(MAX_QUEUE_TOKENS), "causal", 80)
    assert said == ".E" + ("abc" * 21)[:MAX_QUEUE_TOKENS] + "." * (78 - MAX_QUEUE_TOKENS)
    assert num_words == {"words": 21}
    assert drawn(queue(MAX_QUEUE_TOKENS + 1), "causal", 80) == ("." * 80, {"overdue": 21})


def test_a_dropped_queue_takes_what_waits_and_leaves_what_has_been_said():
    # 62 tokens wait behind frame 1. In frame 5, 58 of them wait: "c" and 19 words of 3.
    words = [*queue(MAX_QUEUE_TOKENS), say("wxyz", 80, 401)]
    assert drawn(words, "causal", 80)[1] == {"words": 22}
    words[-1] = say("vwxyz", 80, 401)
    said, found = drawn(words, "causal", 80)
    assert said == ".Eabca" + "." * 74
    assert found == {"words": 1, "overdue": 21}
    # The queue is empty then, and the next word is announced as after any padding.
    said, found = drawn([*words, say("hi", 0, 480), say("no", 0, 900)], "causal", 80)
    assert said == ".EabcaEhi..Eno" + "." * 66
    assert found == {"words": 3, "overdue": 21}


def test_a_single_word_longer_than_5_s_is_dropped_and_not_announced():
    words = [say("a" * (MAX_QUEUE_TOKENS + 1), 0, 80), say("hi", 80, 320)]
    assert drawn(words, "causal") == ("....Ehi.....", {"words": 1, "overdue": 1})
    # Aligned words are cut by the next one, however long they are.
    assert drawn(words, "aligned") == ("ahi.........", {"words": 2})


def test_a_queue_is_judged_by_all_words_of_its_frame_together():
    fitting, last = queue(MAX_QUEUE_TOKENS), say("hi", 0, 159)
    assert drawn([*fitting, last], "causal", 80) == ("." * 80, {"overdue": 22})
    assert drawn([last, *fitting], "causal", 80) == ("." * 80, {"overdue": 22})


TEXTS = st.sampled_from(
    [
        *("a", "b", "c", "d", "ab", "abc", "defg", "hijklmno", "q" * 40, "r" * 70, "", " "),
        *("haha", "[laughter]", "(so", "loud)", "[", "]", ":("),
    ]
)
TIMES_US = st.one_of(
    st.integers(-3, 60).map(lambda frame: frame * FRAME_US),  # on a boundary, and often the same
    st.integers(-3 * FRAME_US, 60 * FRAME_US),
)


@st.composite
def some_words(draw: st.DrawFn, max_size: int = 25) -> list[Word]:
    words = []
    for _ in range(draw(st.integers(0, max_size))):
        start_us = draw(TIMES_US)
        length_us = draw(st.sampled_from([-1, 0, 1, 79_999, FRAME_US, 250_000, 900_000]))
        speaker = draw(st.sampled_from(["Ann", "Ann", "Ann", "Bob", None]))
        words.append(Word(start_us, start_us + length_us, draw(TEXTS), speaker))
    return words


NUM_FRAMES = st.integers(0, 90)
ROWS = st.integers(0, 90)


def visible(words: Sequence[Word], row: int, mode: Mode = "causal") -> str:
    """Return the text that row t of 90 has seen: that of frames 0 to t - 1."""
    return picture(stream(words, 90, mode).codes[:row])


@pytest.mark.slow
@given(some_words(), ROWS, st.data())
def test_causal_row_knows_nothing_of_words_that_have_not_ended(
    words: list[Word], row: int, data: st.DataObject
):
    now_us = row * FRAME_US
    known = visible(words, row)
    over = [word for word in words if now_us > word.end_us]
    assert visible(over, row) == known
    to_come = [word for word in data.draw(some_words()) if word.end_us >= now_us]
    assert visible([*to_come, *words], row) == known
    changed = [
        word if now_us > word.end_us else replace(word, text=data.draw(TEXTS), start_us=now_us)
        for word in words
    ]
    assert visible(changed, row) == known


def test_causal_row_knows_a_word_as_soon_as_it_has_ended():
    word = say("abc", 80, 320)  # the end is no moment of the word, but now(4) is not behind it
    assert [visible([word], row) for row in (4, 5, 6)] == ["....", "....E", "....Ea"]
    word = say("abc", 80, 319.999)
    assert [visible([word], row) for row in (3, 4, 5)] == ["...", "...E", "...Ea"]


def test_aligned_row_knows_words_that_have_not_ended():
    words = [say("so", 80, 300), say("laugh", 400, 900)]
    assert visible(words, 5, "aligned") == "Eso.E"  # one begins in frame 5, not yet heard
    assert visible(words, 10, "aligned") == "Eso.Elaugh"  # until 900 ms it is being said
    assert visible(words[:1], 10, "aligned") == "Eso......."


@given(some_words(), NUM_FRAMES, NUM_FRAMES)
def test_causal_text_does_not_depend_on_the_length_of_the_recording(
    words: list[Word], num_frames: int, more: int
):
    shorter, longer = (stream(words, n, "causal").codes for n in (num_frames, num_frames + more))
    assert picture(shorter) == picture(longer[:num_frames])


@given(some_words(), NUM_FRAMES)
def test_causal_tokens_keep_the_order_of_the_ends(words: list[Word], num_frames: int):
    found = stream(words, num_frames, "causal")
    assume(found.num_overdue == 0)
    tokens = found.codes[(found.codes != PADDING_ID) & (found.codes != END_OF_PADDING_ID)]
    ended = [word for word in sorted(words, key=lambda word: word.end_us) if word.end_us >= 0]
    no_tags = [word for word in ended if word.speaker == "Ann" and word.end_us >= word.start_us]
    if found.num_tags:  # what is a tag is tested elsewhere
        assert is_subsequence(tokens.tolist(), letters("".join(word.text for word in no_tags)))
    else:
        expected = letters("".join(word.text.strip() for word in no_tags))
        assert tokens.tolist() == expected[: len(tokens)]


def is_subsequence(part: Sequence[int], whole: Sequence[int]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


@given(some_words(), NUM_FRAMES, st.sampled_from(get_args(Mode)))
def test_every_word_is_counted_once(words: list[Word], num_frames: int, mode: Mode):
    found = counts(stream(words, num_frames, mode))
    assert all(number > 0 for number in found.values())
    assert sum(found.values()) == sum(word.speaker == "Ann" for word in words)


@given(some_words(), NUM_FRAMES, st.sampled_from(get_args(Mode)), st.randoms())
def test_order_of_the_input_matters_for_equal_times_only(
    words: list[Word], num_frames: int, mode: Mode, random
):
    unlike = list(
        {(word.start_us if mode == "aligned" else word.end_us): word for word in words}.values()
    )
    mixed = unlike.copy()
    random.shuffle(mixed)
    first, second = (stream(items, num_frames, mode) for items in (unlike, mixed))
    assert picture(first.codes) == picture(second.codes)
    assert counts(first) == counts(second)


# What follows says the rules again, frame by frame and as slowly as they can be said. Tags are left
# out of its words.
PLAIN_WORDS = some_words().map(
    lambda words: [
        replace(word, text=word.text.translate({ord(c): "x" for c in "[]():"}))
        for word in words
        if word.text != "haha"
    ]
)


def slow_aligned(words: Sequence[Word], num_frames: int) -> tuple[list[int], int]:
    """Return the codes of the words of Ann, and how many words have a token among them."""
    codes: list[int] = []
    heard: set[int] = set()
    usable = [
        word
        for word in sorted(words, key=lambda word: word.start_us)
        if word.speaker == "Ann" and word.end_us > word.start_us and word.text.strip()
    ]
    to_come = deque(enumerate(word for word in usable if word.end_us >= 0))
    pending: deque[tuple[int, int]] = deque()
    for t in range(num_frames):
        while to_come and to_come[0][1].start_us < (t + 1) * FRAME_US:
            number, word = to_come.popleft()
            pending = deque((number, token) for token in letters(word.text.strip()))
        if not pending:
            codes.append(PADDING_ID)
            continue
        if codes and codes[-1] == PADDING_ID:
            codes[-1] = END_OF_PADDING_ID
        number, token = pending.popleft()
        heard.add(number)
        codes.append(token)
    return codes, len(heard)


def slow_causal(words: Sequence[Word], num_frames: int) -> tuple[list[int], int, int]:
    """Return the codes of the words of Ann, how many words were fed and how many overdue."""
    codes: list[int] = []
    fed: set[int] = set()
    overdue: set[int] = set()
    usable = [
        word
        for word in sorted(words, key=lambda word: word.end_us)
        if word.speaker == "Ann" and word.end_us >= max(word.start_us, 0) and word.text.strip()
    ]
    to_come = deque(enumerate(usable))
    pending: deque[tuple[int, int]] = deque()
    for t in range(num_frames):
        if pending:
            number, token = pending.popleft()
            fed.add(number)
            codes.append(token)
        else:
            codes.append(PADDING_ID)
        # The end of the frame: what has ended in it is known now, not before.
        joining = []
        while to_come and to_come[0][1].end_us < (t + 1) * FRAME_US:
            number, word = to_come.popleft()
            joining += [(number, token) for token in letters(word.text.strip())]
        pending.extend(joining)
        if len(pending) * FRAME_US > 5_000_000:
            overdue.update(number for number, _ in pending)
            pending.clear()
        elif joining and codes[t] == PADDING_ID:
            codes[t] = END_OF_PADDING_ID
    return codes, len(fed - overdue), len(overdue)


@given(PLAIN_WORDS, NUM_FRAMES)
def test_aligned_equals_the_slow_reference(words: list[Word], num_frames: int):
    found = stream(words, num_frames, "aligned")
    codes, num_words = slow_aligned(words, num_frames)
    assert (picture(found.codes), found.num_words) == (picture(np.array(codes, int)), num_words)
    assert found.num_tags == found.num_overdue == 0


@given(PLAIN_WORDS, NUM_FRAMES)
def test_causal_equals_the_slow_reference(words: list[Word], num_frames: int):
    found = stream(words, num_frames, "causal")
    codes, num_words, num_overdue = slow_causal(words, num_frames)
    assert picture(found.codes) == picture(np.array(codes, int))
    assert (found.num_words, found.num_overdue) == (num_words, num_overdue)
    assert found.num_tags == found.num_replaced == 0


TAGS = """
    [laughter] (laughs) <laugh> {noise} [LAUGHTER]. "(laughs)" laughter] (audience </laugh> <unk>
    ((laughs)) yeah[laughter] [laughter-yeah] :) haha Haha! HAHAHA ha-ha Ha,ha. ha Ha! hah hahah
    ahahaha bahaha muahaha mwahaha whahaha hehe heheh heh Heh-heh hee-hee tee-hee teehee hihi hoho
    ho-ho-ho *laughs* *laughing* laughs* _laughs_ &=laughs @laugh@ ~giggling~ *chuckles*, *haha*
"""
WIDE_TAGS = ["\uff08\u7b11\uff09", "\u3010\u7b11\u3011", "\uff28\uff41\uff48\uff41"]
"""Laughter in wide brackets, and haha in wide letters."""
NO_TAGS = """
    laughter laughing Laughs laughed laugh! chuckled giggle aha Aha! ah-ha ah oh he He he-he hi
    hi-hi ho huh hm mhm uh-huh um haven't hat Hahn Hannah has Baha bah hahn's Soho oho heyday hey
    his her f*** s**t *really* **** and/or r&b 5% #1 C# <5 2<3 >> -> 3>2 ... — ' & you're I
"""


@pytest.mark.parametrize(
    "text", [*TAGS.split(), *WIDE_TAGS, "ha ha ha", "ho ho", "*audience laughs*", " haha\n"]
)
def test_laughs_and_words_in_brackets_are_tags(text: str):
    assert is_tag(text)
    for mode in get_args(Mode):
        assert drawn([say(text, 80, 100)], mode) == ("............", {"tags": 1})


@pytest.mark.parametrize(
    "text", [*NO_TAGS.split(), "", " ", "she laughs", "hi, hi", "laughing 50% more"]
)
def test_words_that_somebody_may_have_said_are_no_tags(text: str):
    assert not is_tag(text)


@pytest.mark.parametrize(
    "unit", ["ha", "haha ", "h", "a", "ah", "*", "_ ", "[", "<a", "a>", "ho-", "he", "tee", "!"]
)
def test_long_words_take_linear_time(unit: str):
    # At quadratic time 100,000 signs would take minutes.
    is_tag(unit * 100_000 + "x")
    is_tag("x" + unit * 100_000 + "?x")


def test_text_is_encoded_stripped_and_once():
    asked = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return letters(text)

    words = [
        say(text, 800 * i, 800 * i + 80) for i, text in enumerate(["so ", "so", "so ", "haha"])
    ]
    for mode in get_args(Mode):
        asked.clear()
        assert text_stream(words, "Ann", 50, mode, encode).num_words == 3
        assert asked == ["so", "so"]  # one for each spelling


@pytest.fixture(scope="module")
def tokenizer_path(nano_checkpoint: Path) -> Path:
    return nano_checkpoint / "tokenizer.model"


def test_tokenizer_gives_pieces_without_begin_and_end(tokenizer_path: Path):
    encode = load_tokenizer(tokenizer_path, text_card=400)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_path))
    for text in ("hello", "question", "Zwölf", "laughing", "日本"):
        tokens = encode(text)
        assert tokens == reference.encode(text)
        assert reference.decode(tokens) == text
        assert not {PADDING_ID, END_OF_PADDING_ID, reference.bos_id(), reference.eos_id()} & {
            *tokens
        }
    assert encode("") == []
    found = text_stream([say("hello", 80, 160)], "Ann", 5, "causal", encode)
    assert found.codes.tolist() == [3, 3, 0, *encode("hello"), 3]


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "behind the pieces": lambda data: data[:-5],
    "another file": lambda data: b"<html>\nnot found\n</html>\n",
    "a pointer": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "zeros": lambda data: bytes(len(data)),
    "no UTF-8": lambda data: data.replace(b"<0x61>", b"<0x6\xff>"),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_broken_tokenizer_is_told_in_one_line(
    tokenizer_path: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
):
    broken = tmp_path / "tokenizer.model"
    broken.write_bytes(damage(tokenizer_path.read_bytes()))
    with pytest.raises(CorruptData, match="is no whole sentencepiece model") as caught:
        load_tokenizer(broken)
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_faults_of_a_tokenizer(tokenizer_path: Path, tmp_path: Path):
    faults: list[tuple[Path, int | None, type[LaughstoreError], str]] = [
        (tmp_path / "none.model", None, NotFound, "does not exist"),
        (tmp_path, None, ConfigError, "cannot be read: Is a directory"),
        (tokenizer_path, 399, ConfigError, "has 400 pieces, the model's text stream takes 399"),
    ]
    for path, text_card, kind, message in faults:
        with pytest.raises(kind, match=message) as caught:
            load_tokenizer(path, text_card=text_card)
        assert "\n" not in str(caught.value)
    weights = tmp_path / "weights"
    with weights.open("wb") as file:
        file.truncate(1 << 40)  # takes no room on disk, and must take none in memory
    with pytest.raises(CorruptData, match="1099511627776 bytes"):
        load_tokenizer(weights)
