"""Text to token ids and back. A user's text never becomes a control token; markup, which templates write, does."""

from __future__ import annotations

import operator
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

import tokenizers as hf

from lacewing.errors import OptionError, TokenizerError
from lacewing.formats.checkpoint import Checkpoint
from lacewing.text import gguf, huggingface
from lacewing.text.guards import guarded
from lacewing.text.streaming import StreamDecoder
from lacewing.text.vocabulary import Parts, TokenType

_SPACES = " \t\n\v\f\r"


class Tokenizer:
    """The tokenizer of a checkpoint; safe to use from several threads."""

    def __init__(self, parts: Parts):
        self._parts = replace(parts, build=tuple)
        self._build: Callable[[], tuple[hf.Tokenizer, ...]] | None = parts.build  # with the merges, which are wanted once
        self._vocabulary = parts.vocabulary
        self.kind = parts.kind
        self.vocab_size = len(parts.vocabulary)
        self.bos_id = parts.bos
        self.eos_id = parts.eos
        self.add_bos = parts.add_bos
        self.stop_ids = parts.stop_ids
        self._lock = threading.Lock()
        self._built: tuple[hf.Tokenizer, ...] = ()

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Tokenizer:
        """The tokenizer of an opened GGUF file or Hugging Face directory; weights are not needed. Raises TokenizerError."""
        if checkpoint.format == "gguf":
            return cls(gguf.from_metadata(checkpoint.metadata))
        return cls(huggingface.from_directory(checkpoint.path, checkpoint.metadata, checkpoint.links))

    def encode(self, text: str) -> list[int]:
        """Ids of a user's text: no BOS, and no control token whatever the text says."""
        return self.encode_segments([(text, False)])

    def encode_markup(self, text: str) -> list[int]:
        """Ids of trusted text, in which the spellings of control tokens become these tokens."""
        return self.encode_segments([(text, True)])

    def encode_prompt(self, text: str, *, markup: bool = False) -> list[int]:
        """Ids of a raw completion's prompt: BOS first if the model wants one. `markup` trusts the text."""
        start = [self.bos_id] if self.add_bos and self.bos_id is not None else []
        ids = self.encode_segments([(text, markup)])
        return ids if markup and ids[:1] == start else start + ids

    def encode_whole(self, text: str) -> list[int]:
        """Ids of a user's text that stands alone, as one that is embedded: BOS first and EOS last where the model wants them."""
        ids, end = self.encode_prompt(text), self._parts.end
        return ids if end is None or ids[-1:] == [end] else [*ids, end]

    def encode_segments(self, segments: Iterable[tuple[str, bool]]) -> list[int]:
        """Ids of (text, trusted) segments in a row, as if they were one text.

        Only a spelling that lies wholly within trusted text becomes a control token. Between control tokens the text is
        encoded in one go, so that a border between segments changes no id. Raises OptionError for what is no text.
        """
        ids: list[int] = []
        run: list[str] = []
        for text, token in self._split(segments):
            run.append(text)
            if token is not None:
                self._flush(run, ids, before=token)
                ids.append(token)
        self._flush(run, ids, before=None)
        return ids

    def decode(self, ids: Sequence[int], *, special: bool = False, continuation: bool = False) -> str:
        """Text of ids. Control tokens are left out unless `special`; bytes that are not UTF-8 become U+FFFD.

        `continuation`: the ids follow others, so the space that encoding puts before a text is kept (SentencePiece only).
        Raises OptionError for what are no integers, TokenizerError for ids outside the vocabulary.
        """
        try:
            ids = [operator.index(token) for token in ids]
        except TypeError:
            raise OptionError("token ids must be a list of integers") from None
        decoder = self.stream(special=special, continuation=continuation)
        return "".join(map(decoder.push, ids)) + decoder.flush()

    def stream(self, *, special: bool = False, continuation: bool = False) -> StreamDecoder:
        """A decoder that takes ids one by one; see `decode` for the options."""
        strip = self._parts.strip_first_space and not continuation
        return StreamDecoder(self._vocabulary, strip=strip, special=special)

    def text_bytes(self, *, start: bool = False) -> list[bytes]:
        """What each id adds to a decoded text, b"" for control tokens; `start`: as the first that adds something (see `decode`)."""
        found = self._vocabulary.text_bytes()
        if start and self.strips_start:
            normal = (self._vocabulary.types == TokenType.NORMAL).tolist()
            found = [data.removeprefix(b" ") if plain else data for data, plain in zip(found, normal, strict=True)]
        return found

    @property
    def strips_start(self) -> bool:
        """Whether decoding a text drops the space that encoding put in front of it."""
        return self._parts.strip_first_space

    def token_text(self, token: int) -> str:
        """One token for people to read, control tokens included."""
        return self._vocabulary.bytes_of(int(token), True).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """What one token adds to a text, control tokens as they are spelt; not always whole characters."""
        return self._vocabulary.bytes_of(int(token), True)

    def has(self, text: str) -> bool:
        """Whether a token is spelt exactly so."""
        return text in self._vocabulary.ids

    def is_control(self, token: int) -> bool:
        """Whether an id is a control token, which only markup can produce."""
        return token in self._control_ids

    @property
    def control_tokens(self) -> dict[str, int]:
        """Spelling to id of the tokens that text from users never becomes."""
        return dict(self._vocabulary.control)

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        return frozenset((*self._vocabulary.of_type(TokenType.CONTROL), *self._vocabulary.guarded))

    @cached_property
    def _starts(self) -> re.Pattern[str]:
        """Matches where a control token may begin."""
        first = {text[0] for text in self._vocabulary.control}
        return re.compile("[" + "".join(map(re.escape, sorted(first))) + "]" if first else r"(?!)")

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(text) for text in self._vocabulary.control}, reverse=True)

    def warm(self) -> None:
        """Builds what `encode` needs now rather than at its first call (0.05 to 1 s); harmless to call from a thread."""
        self._core(True)

    def _core(self, start: bool) -> hf.Tokenizer:
        if not self._built:
            with self._lock:
                if self._build is not None:
                    self._built = self._build()
                    self._build = None
        return self._built[0 if start else -1]

    def _split(self, segments: Iterable[tuple[str, bool]]) -> Iterator[tuple[str, int | None]]:
        """Pieces of text, each with the control token that follows it."""
        for text, trusted in _joined(segments):
            done = 0
            for start, stop, token in self._matches(text) if trusted else ():
                yield text[done:start], token
                done = stop
            yield text[done:], None

    def _matches(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(start, stop, id) of control tokens in trusted text: the leftmost, of these the longest."""
        at, control = 0, self._vocabulary.control
        while (found := self._starts.search(text, at)) is not None:
            start = found.start()
            size = next((n for n in self._lengths if text[start : start + n] in control), 0)
            if size:
                yield start, start + size, control[text[start : start + size]]
            at = start + max(size, 1)

    def _flush(self, run: list[str], ids: list[int], before: int | None) -> None:
        text = "".join(run)
        run.clear()
        if ids and ids[-1] in self._parts.right_strip:
            text = text.lstrip(_SPACES)
        if before in self._parts.left_strip:
            text = text.rstrip(_SPACES)
        ids += self._encode(text, start=not ids)

    def _encode(self, text: str, start: bool) -> list[int]:
        if not text:
            return []
        with guarded("the tokenizer fails on this text"):
            try:
                encoding = self._core(start).encode(text, add_special_tokens=False)
            except (UnicodeEncodeError, TypeError):  # lone surrogates
                encoding = self._core(start).encode(_without_surrogates(text), add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids if self._control_ids.isdisjoint(ids) else self._cut_control(text, encoding, start)

    def _cut_control(self, text: str, encoding: hf.Encoding, start: bool) -> list[int]:
        """Encodes text whose merges end in a control token by cutting that token's spelling in two."""
        cuts = {(a + b) // 2 for token, (a, b) in zip(encoding.ids, encoding.offsets, strict=True) if token in self._control_ids}
        edges = sorted({0, len(text)} | {cut for cut in cuts if 0 < cut < len(text)})
        if len(edges) == 2:
            raise TokenizerError(f"this vocabulary can only spell {text[:20]!r} as a control token")
        ids: list[int] = []
        for a, b in pairwise(edges):
            ids += self._encode(text[a:b], start=start and a == 0)
        return ids


def _joined(segments: Iterable[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Neighbouring segments of the same trust as one."""
    joined: list[tuple[list[str], bool]] = []
    for text, trusted in segments:
        if not isinstance(text, str):
            raise OptionError(f"expected text, not {type(text).__name__}")
        if not joined or joined[-1][1] != trusted:
            joined.append(([], trusted))
        joined[-1][0].append(text)
    return [("".join(texts), trusted) for texts, trusted in joined]


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
