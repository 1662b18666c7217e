"""What a tokenizer is made of, whichever file it came from: above all its pieces, what they mean and which are control tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt
import tokenizers as hf

from lacewing.errors import TokenizerError

SPACE = "▁"  # how SentencePiece spells a space
MAX_PIECES = 1 << 22
MAX_PIECE_LENGTH = 1 << 16
_MARKUP = re.compile(r"<\|.*|.*\|>|<｜.*｜>|\[/?[A-Z_]+\]|</?(start|end)_of_turn>", re.DOTALL)
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def words(text: str) -> frozenset[str]:
    """A set of words, for tables that read better so."""
    return frozenset(text.split())


# Tokens that end an answer whatever the metadata says (architectures.md, 10.3).
_STOP_TEXTS = words(
    """
    <|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|>
    <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~[
    <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|>
    """
)
# Control tokens even where a file calls them normal. Short ones that occur in HTML or prose are left as the file has them.
_ALWAYS_CONTROL = frozenset(text for text in _STOP_TEXTS if text.startswith(("<|", "<｜", "<end_of_"))) | {
    "<|im_start|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<start_of_turn>",
}


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER = 4
    UNUSED = 5
    BYTE = 6


def byte_alphabet() -> dict[str, int]:
    """The characters with which byte-level vocabularies spell bytes (GPT-2): printable ones stand for themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [value for value in range(256) if value not in set(plain)]
    return {chr(value): value for value in plain} | {chr(256 + i): value for i, value in enumerate(rest)}


_ALPHABET = byte_alphabet()
# What is no letter of it becomes one that is no byte, so that the whole piece is seen to be none.
_BYTE_OF = {value: "\u0100" for value in range(256)} | {ord(letter): chr(value) for letter, value in _ALPHABET.items()}


class Vocabulary:
    """Pieces by id. `spelling`: "bytes" (GPT-2 alphabet) or "spaces" (SentencePiece: U+2581 for a space, `<0xXX>` for a byte)."""

    def __init__(self, pieces: list[str], types: npt.NDArray[np.uint8], spelling: str):
        if not pieces:
            raise TokenizerError("the vocabulary is empty")
        if len(pieces) > MAX_PIECES:
            raise TokenizerError(f"the vocabulary has {len(pieces)} pieces; at most {MAX_PIECES} are accepted")
        if len(max(pieces, key=len)) > MAX_PIECE_LENGTH:
            raise TokenizerError(f"piece {pieces.index(max(pieces, key=len))} is longer than {MAX_PIECE_LENGTH} characters")
        self.pieces = pieces
        self.ids: dict[str, int] = dict(zip(pieces, range(len(pieces)), strict=True))
        self.spelling = spelling
        self.types = types.copy()
        for token in map(self.ids.get, _ALWAYS_CONTROL):
            if token is not None:
                self.types[token] = TokenType.CONTROL
        end = self.ids.get("</s>", 0)
        if self.types[end] == TokenType.USER and "<eos>" not in self.ids:  # of Gemma, which has it, this is HTML
            self.types[end] = TokenType.CONTROL
        self._bytes: dict[int, bytes] = {}
        self._texts: dict[int, str | None] = {}
        self._check_bytes()

    def __len__(self) -> int:
        return len(self.pieces)

    def of_type(self, *kinds: TokenType) -> list[int]:
        """Ids of these types, ascending."""
        return np.flatnonzero(np.isin(self.types, [int(kind) for kind in kinds])).tolist()

    @cached_property
    def control(self) -> dict[str, int]:
        """Text to id of the tokens that only markup is matched with: control tokens, the unknown one, and `guarded`."""
        ids = [*self.of_type(TokenType.CONTROL, TokenType.UNKNOWN), *self.guarded]
        return {self.pieces[i]: i for i in ids if self.pieces[i]}

    @cached_property
    def guarded(self) -> frozenset[int]:
        """User-defined tokens that look like markup, as DeepSeek's `<｜User｜>`: decoded as text, not for users to write."""
        return frozenset(i for i in self.of_type(TokenType.USER) if _MARKUP.fullmatch(self.pieces[i]))

    @cached_property
    def _hidden(self) -> frozenset[int]:
        return frozenset(self.of_type(TokenType.CONTROL, TokenType.UNKNOWN, TokenType.UNUSED))

    def bytes_of(self, token: int, special: bool) -> bytes:
        """UTF-8 bytes that an id stands for, perhaps part of a character. Control tokens give b"" unless `special`."""
        if not special and token in self._hidden:
            return b""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._spell(token)
        return known

    def text_of(self, token: int) -> str | None:
        """What an id adds to a text as `bytes_of` without `special`, where that is whole characters; else None."""
        text = self._texts.get(token)
        if text is None and token not in self._texts:
            try:
                text = self.bytes_of(token, False).decode()
            except UnicodeDecodeError:
                text = None
            self._texts[token] = text
        return text

    def text_bytes(self) -> list[bytes]:
        """What every id adds to a text, as `bytes_of` without `special`: 0.1 s for 250,000 ids."""
        if self.spelling == "bytes":
            found = [piece.translate(_BYTE_OF) for piece in self.pieces]
            spelt = [text.encode("latin-1") if text.isascii() or max(text) < "\u0100" else None for text in found]
        else:
            spelt = [piece.replace(SPACE, " ").encode("utf-8", "replace") for piece in self.pieces]
        for token in np.flatnonzero(self.types != TokenType.NORMAL).tolist():
            spelt[token] = self.bytes_of(token, False)
        return [self.bytes_of(token, False) if data is None else data for token, data in enumerate(spelt)]

    def _spell(self, token: int) -> bytes:
        if not 0 <= token < len(self.pieces):
            raise TokenizerError(f"token id {token} is outside the vocabulary of {len(self.pieces)} pieces")
        piece, kind = self.pieces[token], self.types[token]
        if kind == TokenType.BYTE and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        if kind == TokenType.NORMAL and self.spelling == "bytes":
            values = [_ALPHABET.get(character, -1) for character in piece]
            if min(values, default=0) >= 0:
                return bytes(values)
        elif kind == TokenType.NORMAL:
            piece = piece.replace(SPACE, " ")
        return piece.encode("utf-8", "replace")

    def _check_bytes(self) -> None:
        for token in self.of_type(TokenType.BYTE):
            if not _BYTE_PIECE.fullmatch(self.pieces[token]) and self.spelling == "spaces":
                raise TokenizerError(f"token {token} is of type byte but spelt {self.pieces[token][:40]!r}, not <0x00> to <0xFF>")

    def stops(self, named: Iterable[int]) -> frozenset[int]:
        """Ids that end an answer: the named ones, and special tokens whose text says so."""
        special = {text: token for text, token in self.control.items()}
        special |= {self.pieces[i]: i for i in self.of_type(TokenType.USER)}
        found = {token for text, token in special.items() if text in _STOP_TEXTS} | set(named)
        texts = {self.pieces[token] for token in found}
        if {"<|return|>", "<|call|>"} <= texts or {"<|calls|>", "<|flush|>"} <= texts:
            found.discard(special.get("<|end|>", -1))  # harmony: ends a message, not the answer
        if self.types[special.get("</s>", 0)] == TokenType.USER and special.get("</s>") not in set(named):
            found.discard(special.get("</s>", -1))
        return frozenset(found)


@dataclass(frozen=True)
class Parts:
    """The parts of a tokenizer.

    `build` makes the library's objects, which takes up to a second, so it runs at first use. The first object encodes the
    start of a text; a second one, where the two differ, encodes text after a control token.
    """

    kind: str  # "spm", "bpe", "gemma4", ...
    vocabulary: Vocabulary
    build: Callable[[], tuple[hf.Tokenizer, ...]]
    bos: int | None
    eos: int | None
    add_bos: bool
    stop_ids: frozenset[int]
    strip_first_space: bool = False  # decoding a whole text drops the space that encoding put in front
    left_strip: frozenset[int] = frozenset()  # control tokens that swallow the spaces before them
    right_strip: frozenset[int] = frozenset()  # ... and after them
    end: int | None = None  # stands behind a whole text, such as one that is embedded
