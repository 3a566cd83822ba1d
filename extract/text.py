"""The text stream: words of one speaker as Moshi's tokens, one a frame.

In: the words of a recording, and the tokenizer of a model. Out: `TextStream`, one code for each
frame. Pure arithmetic on integer microseconds; no audio, no torch.

A frame in which nothing is said holds padding. Moshi announces words: where a word follows padding,
the last padding becomes the code that ends it, and the word's tokens follow, one a frame. Row t of
the features has seen the text of frames 0 to t - 1. With F(x) the frame that holds time x:

- `aligned`, as Moshi was trained. Words in order of their start; a word's tokens begin in frame
  F(start) and take the place of whatever the word before it had left to say, and of two words that
  start in one frame the first is lost. The frame before, if it is padding, announces it. So row t
  may know a word that has hardly begun, and that one begins in frame t.
- `causal`, what a recogniser that answers at once could tell. Words in order of their end; a word
  joins a queue in frame F(end) and its tokens follow from frame F(end) + 1, each when those before
  it have been said. Frame F(end) announces it if nothing else is said there; behind other words a
  word needs no announcement, as in `aligned`. So row t holds nothing of a word unless 80 t ms, the
  moment of the row, lies behind the word's end. A queue that could not be said within 5 s is
  dropped whole: when the words of frame F(end) have joined and more than 62 tokens wait (63 frames
  are 5.04 s), all that wait are dropped unannounced, also the rest of a word that has begun.

Left out in both modes, and counted: tags (`is_tag`) and what stands in brackets that an earlier
word has opened; words without text, and those that end before they start (`aligned`: or when they
start); words that end before time 0 or whose first token lies behind the last frame. A word that
began before time 0 starts in frame 0. Words of equal times keep the order they are given in.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from laughstore.annotations import Word
from laughstore.errors import ConfigError, CorruptData, NotFound
from laughstore.timebase import FRAME_US, floor_frame

PADDING_ID = 3
"""Text code of a frame in which nothing is said."""
END_OF_PADDING_ID = 0
"""Text code of the last frame before a word that follows padding."""
MAX_QUEUE_TOKENS = 5_000_000 // FRAME_US
"""Tokens that may wait to be said (causal): those of 5 s, 62 frames."""
MAX_WORDS_IN_BRACKETS = 10
"""Words dropped behind a bracket that no word closes: it was no bracket then."""

_MAX_TOKENIZER_BYTES = 64 << 20
"""Some 32,000 pieces take about half a megabyte; weights given in its place are not read."""


@dataclass(frozen=True)
class TextStream:
    """The text stream of one speaker, and what became of their words.

    Each word of the speaker is in exactly one of the counts.
    """

    codes: NDArray[np.int16]
    """i16[T]: a token, `PADDING_ID` or `END_OF_PADDING_ID` for each frame."""
    num_words: int
    """Fed: whole, or cut by the next word (aligned) or by the end of the recording."""
    num_tags: int = 0
    """Dropped: laugh tags, and words in brackets."""
    num_overdue: int = 0
    """Dropped, whole or in part, with a queue longer than 5 s (causal)."""
    num_replaced: int = 0
    """Lost whole to a later word that starts in the same frame (aligned)."""
    num_empty: int = 0
    """Dropped: no text, an end before the start, or (aligned) at the start."""
    num_outside: int = 0
    """Dropped: over before time 0, or first token behind the last frame."""


def text_stream(
    words: Iterable[Word],
    speaker: str,
    num_frames: int,
    mode: Literal["causal", "aligned"],
    encode: Callable[[str], list[int]],
) -> TextStream:
    """Return the text stream of a speaker over a recording.

    Args:
        words: of everybody, in any order; those of other speakers, or of nobody, are not counted.
        speaker: whose words are fed.
        num_frames: T of the recording.
        mode: as described above.
        encode: tokens of a stripped text, from `load_tokenizer`; asked once for each text.
    """
    own = [word for word in words if word.speaker == speaker]
    # Whether a word stands in brackets depends on the words before it. In `causal` these are words
    # that ended before it did: a bracket must not tell of what is still to come.
    own.sort(key=attrgetter("start_us" if mode == "aligned" else "end_us"))
    spoken = _without_tags(own)
    num_empty = num_outside = 0
    tokens_of: dict[str, list[int]] = {}
    entries: list[_Entry] = []
    for word in spoken:
        tokens = tokens_of.get(word.text)
        if tokens is None:
            text = word.text.strip()
            tokens = tokens_of[word.text] = encode(text) if text else []
        # A word of no length is over when it starts: a time at which it can be told, but not one
        # that Moshi was trained with.
        if not tokens or word.end_us < word.start_us + (mode == "aligned"):
            num_empty += 1
            continue
        frame = floor_frame(max(word.start_us, 0) if mode == "aligned" else word.end_us)
        if word.end_us < 0 or frame >= num_frames:
            num_outside += 1
        else:
            entries.append(_Entry(frame, tokens))
    num_overdue = num_replaced = 0
    if mode == "aligned":
        codes, num_replaced = _aligned(entries, num_frames)
    else:
        codes, num_overdue, num_late = _causal(entries, num_frames)
        num_outside += num_late
    num_tags = len(own) - len(spoken)
    num_dropped = num_tags + num_overdue + num_replaced + num_empty + num_outside
    return TextStream(
        codes,
        num_words=len(own) - num_dropped,
        num_tags=num_tags,
        num_overdue=num_overdue,
        num_replaced=num_replaced,
        num_empty=num_empty,
        num_outside=num_outside,
    )


def load_tokenizer(path: Path, *, text_card: int | None = None) -> Callable[[str], list[int]]:
    """Return what turns a text into the token ids of a sentencepiece model, without bos and eos.

    Args:
        path: the model's file (`ModelFiles.tokenizer_path`).
        text_card: entries of the language model's text vocabulary, if they are to be compared.

    Raises:
        NotFound: there is no such file.
        CorruptData: the file is no sentencepiece model, or a cut or altered one.
        ConfigError: it has more pieces than the language model or the stored codes (int16).
    """
    try:
        num_bytes = path.stat().st_size
        data = path.read_bytes() if num_bytes <= _MAX_TOKENIZER_BYTES else b""
    except FileNotFoundError as error:
        raise NotFound(f"tokenizer {path} does not exist: fetch the model again") from error
    except OSError as error:
        raise ConfigError(f"tokenizer {path} cannot be read: {error.strerror}") from error
    tokenizer = sentencepiece.SentencePieceProcessor()
    try:
        tokenizer.LoadFromSerializedProto(data)
        tokenizer.encode("word")
        num_pieces = tokenizer.get_piece_size()
    except (RuntimeError, ValueError) as error:  # ValueError: pieces that are no UTF-8
        raise CorruptData(
            f"tokenizer {path} ({num_bytes} bytes) is no whole sentencepiece model: fetch it again"
        ) from error
    limit = min(np.iinfo(np.int16).max + 1, text_card or num_pieces)
    if num_pieces > limit:
        raise ConfigError(
            f"tokenizer {path} has {num_pieces} pieces, the model's text stream takes {limit}: give"
            " the tokenizer that the model was trained with"
        )

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_bos=False, add_eos=False)

    return encode


@dataclass(frozen=True, slots=True)
class _Entry:
    """A word to be said."""

    frame: int
    """F(start) in `aligned`, F(end) in `causal`: 0 to T - 1."""
    tokens: Sequence[int]
    """One at least."""


def _aligned(entries: list[_Entry], num_frames: int) -> tuple[NDArray[np.int16], int]:
    """Return the codes i16[T] of words in order of their start, and how many were replaced."""
    codes = np.full(num_frames, PADDING_ID, np.int16)
    begun = list({entry.frame: entry for entry in entries}.values())  # the last of each frame
    free = 0  # first frame behind the tokens of the word before
    for i, entry in enumerate(begun):
        if free < entry.frame:
            codes[entry.frame - 1] = END_OF_PADDING_ID
        stop = begun[i + 1].frame if i + 1 < len(begun) else num_frames
        free = min(entry.frame + len(entry.tokens), stop)
        codes[entry.frame : free] = entry.tokens[: free - entry.frame]
    return codes, len(entries) - len(begun)


def _causal(entries: list[_Entry], num_frames: int) -> tuple[NDArray[np.int16], int, int]:
    """Return the codes i16[T] of words in order of their end, how many were overdue, how many late.

    A word is late when the recording ends before its first token.
    """
    # The queue is written where it will be said; what waits in the last frame lies behind it.
    codes = np.full(num_frames + MAX_QUEUE_TOKENS, PADDING_ID, np.int16)
    free = 0  # first frame behind the queue
    said: list[tuple[int, int]] = []  # frames [first, stop) of each word in the queue or before it
    num_overdue = 0
    for frame, ended in groupby(entries, attrgetter("frame")):
        joining = [entry.tokens for entry in ended]
        first = max(free, frame + 1)
        if first + sum(map(len, joining)) > frame + 1 + MAX_QUEUE_TOKENS:
            codes[frame + 1 : first] = PADDING_ID
            free = frame + 1
            num_overdue += len(joining)
            while said and said[-1][1] > frame + 1:
                said.pop()
                num_overdue += 1
            continue
        if free <= frame:
            codes[frame] = END_OF_PADDING_ID
        free = first
        for tokens in joining:
            said.append((free, free + len(tokens)))
            codes[free : free + len(tokens)] = tokens
            free += len(tokens)
    num_late = sum(first >= num_frames for first, _ in said)
    return codes[:num_frames].copy(), num_overdue, num_late


_MARKS = frozenset("*_~#%&=@/+|^♪")
"""Signs that set a stage direction apart: *laughs*, &=laughs, ~chuckle~."""
_DIRECTION = re.compile(r"\b(?:laugh|chuckl|giggl|snicker|cackl|guffaw|titter)")
# CJK texts have square brackets of their own. In `2 < 3` and `->` there are none.
_BRACKET = re.compile(
    r"(?P<open>[(\[{\u3010\u3014]|<(?=[^\W\d_]|/))|[)\]}\u3011\u3015]|(?:(?<=[^\W\d_])|(?<=/))>"
)
_BETWEEN = re.compile(r"[\W_]+")
_SYLLABLES = re.compile(
    r"(?:[bgw]|mu?w?)?a*(?:h+(?:a+|e+)){2,}h*"  # haha, ahahah, bahaha, muahaha, hehe
    r"|(?:h+i+){2,}h*|(?:h+o+){2,}h*"  # hihi, hoho
    r"|h+a+h*|h+e+h+|h+e{2,}"  # ha, hah, heh, hee
)
_APART = re.compile(r"t+e{2,}-?h+e{2,}|h+o+(?:-h+o+)+")
"""Laughs whose syllables are words when they stand alone: tee-hee, ho-ho."""


def is_tag(text: str) -> bool:
    """Tell whether a word is never fed, whatever stands around it.

    Case and punctuation around the word do not count. A tag is a word

    - that holds a bracket: `[laughter]`, `(laughs)`, `<laugh>`, `{noise}`, `laughter]`;
    - of laughed syllables: `haha`, `Ha-ha!`, `ha`, `hah`, `hehe`, `heh`, `hee-hee`, `tee-hee`,
      `hihi`, `ho-ho`, `bahaha`;
    - of laughter between or beside marks: `*laughs*`, `&=laughs`, `~giggling~`, `*haha*`.

    Not tags: `laughter`, `laughs` or `chuckled` as they are, which somebody said; `aha`, `ah-ha`,
    `he`, `he-he` (a stutter), `hi`, `ho`, `huh`, `hm`; censored words (`f***`).
    """
    return _Shape.of(text).is_tag


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the letters of a word say about tags."""

    is_tag: bool
    has_bracket: bool
    opens: bool
    """Its last bracket opens and is not closed in the word."""

    @classmethod
    def of(cls, text: str) -> "_Shape":
        # Compatibility forms: full-width brackets and letters become plain ones.
        plain = unicodedata.normalize("NFKC", text).casefold().strip()
        brackets = list(_BRACKET.finditer(plain))
        if brackets:
            last = brackets[-1]
            # A smiley `:(` opens nothing; a bracket alone, cut off from its words, does.
            inside = any(map(str.isalnum, plain[last.end() :])) or len(plain) == len(brackets)
            return cls(is_tag=True, has_bracket=True, opens=last["open"] is not None and inside)
        parts = [part for part in _BETWEEN.split(plain) if part]
        laughed = bool(parts) and (
            all(_SYLLABLES.fullmatch(part) for part in parts)
            or _APART.fullmatch("-".join(parts)) is not None
        )
        letters = [i for i, sign in enumerate(plain) if sign.isalnum()]
        # Marks in the middle (`and/or`) set nothing apart.
        edges = plain[: letters[0]] + plain[letters[-1] + 1 :] if letters else ""
        marked = not _MARKS.isdisjoint(edges) and _DIRECTION.search(" ".join(parts)) is not None
        return cls(is_tag=laughed or marked, has_bracket=False, opens=False)


def _without_tags(words: list[Word]) -> list[Word]:
    """Return the words that are no tags and stand in no bracket that a word before has opened."""
    shapes: dict[str, _Shape] = {}
    kept: list[Word] = []
    num_inside = 0  # words that the open bracket may still hold
    for word in words:
        shape = shapes.get(word.text)
        if shape is None:
            shape = shapes[word.text] = _Shape.of(word.text)
        if not shape.is_tag and not num_inside:
            kept.append(word)
        if shape.has_bracket:
            num_inside = MAX_WORDS_IN_BRACKETS if shape.opens else 0
        else:
            num_inside = max(num_inside - 1, 0)
    return kept
