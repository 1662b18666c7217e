"""The tokenizer of a GGUF file: reads and checks `tokenizer.ggml.*`, and builds the library's objects from it.

Control tokens are given to the library under names that no text can spell, so that nothing a user writes becomes one;
markup is matched outside (`tokenizer.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import tokenizers as hf
from tokenizers import models, normalizers, pre_tokenizers

from lacewing.errors import TokenizerError
from lacewing.text.merges import derive_merges
from lacewing.text.pretokenizers import PreTokenizer, pre_tokenizer
from lacewing.text.vocabulary import SPACE, Parts, TokenType, Vocabulary

_REACHABLE = (TokenType.NORMAL, TokenType.USER, TokenType.BYTE)


def from_metadata(metadata: Mapping[str, Any]) -> Parts:
    """The parts of the tokenizer of a GGUF file. TokenizerError where the metadata is missing, damaged or unknown."""
    fields = _Fields(metadata)
    kind = fields.text("model")
    if kind is None:
        raise TokenizerError("the file has no tokenizer (tokenizer.ggml.model is missing)")
    if kind not in ("llama", "gpt2", "gemma4"):
        raise TokenizerError(f"tokenizer kind {kind!r} (tokenizer.ggml.model) is not supported; supported are llama, gpt2, gemma4")
    pieces = fields.texts("tokens")
    pieces = [piece or f"[EMPTY_{i}]" for i, piece in enumerate(pieces)] if "" in pieces else pieces
    vocabulary = Vocabulary(pieces, fields.types(len(pieces)), "bytes" if kind == "gpt2" else "spaces")
    return _byte_level(fields, vocabulary) if kind == "gpt2" else _raw(fields, vocabulary, kind)


def _byte_level(fields: _Fields, vocabulary: Vocabulary) -> Parts:
    pre = pre_tokenizer(fields.text("pre"))
    merges = fields.merges()
    eos = fields.token("eos", vocabulary)
    bos = fields.token("bos", vocabulary)
    return Parts(
        kind="bpe",
        vocabulary=vocabulary,
        build=lambda: (byte_level(vocabulary, merges, pre),),
        bos=bos,
        eos=eos,
        add_bos=fields.flag("add_bos_token", pre.add_bos) and bos is not None,
        end=eos if fields.flag("add_eos_token", False) else None,
        stop_ids=vocabulary.stops(fields.named_stops(vocabulary)),
    )


def _raw(fields: _Fields, vocabulary: Vocabulary, kind: str) -> Parts:
    size = len(vocabulary)
    default = {"bos": 1, "eos": 2, "unknown": 0} if kind == "llama" else {}
    tokens = {name: fields.token(name, vocabulary, default.get(name)) for name in ("bos", "eos", "unknown")}
    unknown = tokens["unknown"] if tokens["unknown"] is not None else 0
    prefix = fields.flag("add_space_prefix", kind == "llama")
    if kind == "llama":
        scores = fields.scores(size)

        def build() -> tuple[hf.Tokenizer, ...]:
            return (sentencepiece(vocabulary, scores, unknown=unknown, prefix=prefix),)
    else:
        merges = [(a.replace("Ġ", " "), b.replace("Ġ", " ")) for a, b in fields.merges()]

        def build() -> tuple[hf.Tokenizer, ...]:
            return (raw_bpe(vocabulary, merges, unknown=unknown, prefix=prefix),)

    # Phi-3 was trained with the spaces after its control tokens left out.
    phi3 = any(name in (fields.general_name or "").lower() for name in ("phi-3", "phi3"))
    kept = {"<unk>", "<s>", "<|endoftext|>"}
    return Parts(
        kind="spm" if kind == "llama" else kind,
        vocabulary=vocabulary,
        build=build,
        bos=tokens["bos"],
        eos=tokens["eos"],
        end=tokens["eos"] if fields.flag("add_eos_token", False) else None,
        add_bos=tokens["bos"] is not None and (kind == "gemma4" or fields.flag("add_bos_token", True)),
        stop_ids=vocabulary.stops(fields.named_stops(vocabulary) | {token for token in [tokens["eos"]] if token is not None}),
        strip_first_space=prefix,
        right_strip=frozenset(i for text, i in vocabulary.control.items() if phi3 and text not in kept),
    )


class _Fields:
    """Typed access to `tokenizer.ggml.*`; a value of a wrong type, length or range is a TokenizerError naming the key."""

    def __init__(self, metadata: Mapping[str, Any]):
        self._metadata = metadata

    @property
    def general_name(self) -> str | None:
        name = self._metadata.get("general.name")
        return name if isinstance(name, str) else None

    def _get(self, key: str) -> Any:
        return self._metadata.get(f"tokenizer.ggml.{key}")

    def text(self, key: str) -> str | None:
        value = self._get(key)
        if value is not None and not isinstance(value, str):
            raise TokenizerError(f"tokenizer.ggml.{key} must be a string, it is {type(value).__name__}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key)
        if value is None:
            return default
        if not isinstance(value, (bool, np.bool_)):
            raise TokenizerError(f"tokenizer.ggml.{key} must be a bool, it is {type(value).__name__}")
        return bool(value)

    def token(self, name: str, vocabulary: Vocabulary, default: int | None = None) -> int | None:
        """The id `{name}_token_id`, checked against the vocabulary; the all-ones value means none."""
        key = f"{name}_token_id"
        value = self._get(key)
        if value is None:
            return default if default is not None and default < len(vocabulary) else None
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise TokenizerError(f"tokenizer.ggml.{key} must be an integer, it is {type(value).__name__}")
        if int(value) in (-1, 0xFFFFFFFF):
            return None
        if not 0 <= int(value) < len(vocabulary):
            raise TokenizerError(f"tokenizer.ggml.{key} is {value}, outside the vocabulary of {len(vocabulary)} pieces")
        return int(value)

    def named_stops(self, vocabulary: Vocabulary) -> set[int]:
        """The ids that the metadata itself names as ends."""
        found = {self.token(name, vocabulary) for name in ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")}
        extra = self._get("eos_token_ids")
        if extra is not None:
            for token in self._numbers("eos_token_ids", "iu").tolist():
                if not 0 <= token < len(vocabulary):
                    raise TokenizerError(f"tokenizer.ggml.eos_token_ids holds {token}, outside the vocabulary")
                found.add(int(token))
        return {token for token in found if token is not None}

    def texts(self, key: str) -> list[str]:
        value = self._get(key)
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise TokenizerError(f"tokenizer.ggml.{key} must be an array of strings")
        items = value if isinstance(value, list) else list(value)
        if set(map(type, items)) - {str}:
            raise TokenizerError(f"tokenizer.ggml.{key} must hold strings only")
        return items

    def merges(self) -> list[tuple[str, str]]:
        """ "A B" pairs; the separator is the first space that is not the first character."""
        merges = self.texts("merges")
        pairs = [tuple(merge.split(" ", 1)) for merge in merges]
        if set(map(len, pairs)) <= {2} and all(map(itemgetter(0), pairs)):
            return cast(list[tuple[str, str]], pairs)
        cuts = [merge.find(" ", 1) for merge in merges]
        if min(cuts) < 1:
            i = next(i for i, cut in enumerate(cuts) if cut < 1)
            raise TokenizerError(f"tokenizer.ggml.merges[{i}] is {merges[i][:40]!r}, not two pieces with a space between")
        return [(merge[:cut], merge[cut + 1 :]) for merge, cut in zip(merges, cuts, strict=True)]

    def types(self, size: int) -> npt.NDArray[np.uint8]:
        if self._get("token_type") is None:
            return np.full(size, TokenType.NORMAL, np.uint8)
        types = self._numbers("token_type", "i" if not self._unsigned("token_type") else "iu", size, width=4)
        if size and not 0 <= int(types.min()) <= int(types.max()) <= max(TokenType):
            raise TokenizerError(f"tokenizer.ggml.token_type must lie in 0..{max(TokenType)}")
        return types.astype(np.uint8)

    def scores(self, size: int) -> npt.NDArray[np.float64]:
        if self._get("scores") is None:
            return np.zeros(size)
        scores = self._numbers("scores", "fi", size, width=4).astype(np.float64)
        if not np.isfinite(scores).all():
            raise TokenizerError("tokenizer.ggml.scores must be finite")
        return scores

    def _unsigned(self, key: str) -> bool:
        value = self._get(key)
        return isinstance(value, np.ndarray) and value.dtype == np.uint32

    def _numbers(self, key: str, kinds: str, size: int | None = None, width: int | None = None) -> npt.NDArray[Any]:
        """A flat array of numbers of the dtype kinds. A typed array narrower than `width` bytes is refused."""
        value = self._get(key)
        try:
            array = value if isinstance(value, np.ndarray) else np.asarray(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise TokenizerError(f"tokenizer.ggml.{key} must be an array of numbers") from error
        narrow = isinstance(value, np.ndarray) and width is not None and array.dtype.itemsize < width
        if array.ndim != 1 or (len(array) and array.dtype.kind not in kinds) or narrow:
            raise TokenizerError(
                f"tokenizer.ggml.{key} must be a flat array of {width or 4}-byte numbers, it has type {array.dtype}"
            )
        if size is not None and len(array) != size:
            raise TokenizerError(f"tokenizer.ggml.{key} has {len(array)} entries, the vocabulary {size}")
        return array


def byte_level(vocabulary: Vocabulary, merges: Sequence[tuple[str, str]], pre: PreTokenizer) -> hf.Tokenizer:
    """A GPT-2 style tokenizer: regexes, then bytes, then merges in the file's order."""
    core = hf.Tokenizer(_bpe(vocabulary, merges, ignore_merges=pre.whole_words))
    splits = [pre_tokenizers.Split(hf.Regex(regex), "isolated") for regex in pre.regexes]
    core.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return _with_user_tokens(core, vocabulary)


def sentencepiece(vocabulary: Vocabulary, scores: npt.NDArray[np.float64], *, unknown: int, prefix: bool) -> hf.Tokenizer:
    """A SentencePiece BPE tokenizer with byte fallback; its merges follow from the scores (V,).

    `prefix`: a space is put before every text, as the model was trained with.
    """
    ids = np.fromiter(vocabulary.ids.values(), np.int64, len(vocabulary.ids))  # unique pieces
    ids = ids[vocabulary.types[ids] == TokenType.NORMAL]
    if len(ids) and np.ptp(scores[ids]) == 0:
        scores = -np.arange(len(vocabulary), dtype=np.float64)  # the order was lost in conversion; ids are the best guess
    return raw_bpe(vocabulary, derive_merges(vocabulary.pieces, ids, scores[ids]), unknown=unknown, prefix=prefix)


def raw_bpe(vocabulary: Vocabulary, merges: Sequence[tuple[str, str]], *, unknown: int, prefix: bool) -> hf.Tokenizer:
    """BPE over characters with U+2581 for a space and byte fallback: SentencePiece, and Gemma 4 whose file has the merges."""
    core = hf.Tokenizer(_bpe(vocabulary, merges, unk_token=_name(vocabulary, unknown), fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", SPACE)
    core.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace]) if prefix else replace
    if not _joins_words(vocabulary):
        # No piece holds a space after another character, so a cut there changes no id; it makes the library's word cache work.
        core.pre_tokenizer = pre_tokenizers.Split(hf.Regex(f"{SPACE}*[^{SPACE}]+|{SPACE}+"), "isolated")
    return _with_user_tokens(core, vocabulary)


def _joins_words(vocabulary: Vocabulary) -> bool:
    """Whether some piece that merges can build has a space after another character."""
    suspects = (piece for piece in vocabulary.pieces if SPACE in piece and SPACE in piece.lstrip(SPACE))
    return any(vocabulary.types[vocabulary.ids[piece]] in _REACHABLE for piece in suspects)


def _name(vocabulary: Vocabulary, token: int) -> str:
    """The name under which the library knows an id; of control tokens one that no text has, as it starts with NUL."""
    return (
        f"\0token {token}" if vocabulary.types[token] not in _REACHABLE or token in vocabulary.guarded else vocabulary.pieces[token]
    )


def _bpe(vocabulary: Vocabulary, merges: Sequence[tuple[str, str]], **options: Any) -> models.BPE:
    names = dict(vocabulary.ids)
    for token in [*np.flatnonzero(~np.isin(vocabulary.types, _REACHABLE)).tolist(), *vocabulary.guarded]:
        if names.pop(vocabulary.pieces[token], None) is not None:
            names[_name(vocabulary, token)] = token
    try:
        return models.BPE(names, merges, **options)
    except Exception:  # the library raises plain Exception for a merge of unknown pieces
        merges = [(a, b) for a, b in merges if a in names and b in names and a + b in names]
    try:
        return models.BPE(names, merges, **options)
    except Exception as error:
        raise TokenizerError(f"the vocabulary and merges do not make a tokenizer: {error}") from error


def _with_user_tokens(core: hf.Tokenizer, vocabulary: Vocabulary) -> hf.Tokenizer:
    """User-defined tokens (runs of spaces or newlines, tags) are found in raw text before anything else."""
    texts = [vocabulary.pieces[token] for token in vocabulary.of_type(TokenType.USER) if token not in vocabulary.guarded]
    core.add_tokens([hf.AddedToken(text, special=False, normalized=False) for text in texts if text])
    return core
