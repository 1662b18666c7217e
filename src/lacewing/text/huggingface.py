"""The tokenizer of a Hugging Face directory: `tokenizer.json`, or Kimi's `tiktoken.model`, with the settings beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as hf
from tokenizers import models, pre_tokenizers

from lacewing.errors import TokenizerError
from lacewing.formats.files import Links, read_named
from lacewing.text import ranks
from lacewing.text.gguf import byte_level
from lacewing.text.guards import check_file, check_regexes, check_steps, flat, guarded
from lacewing.text.vocabulary import MAX_PIECE_LENGTH, MAX_PIECES, Parts, TokenType, Vocabulary

MAX_FILE = 128 << 20
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def from_directory(path: Path, metadata: Mapping[str, Any], links: Links | None = None) -> Parts:
    """The parts of the tokenizer of a directory (or of the directory of a .safetensors file)."""
    directory = path if path.is_dir() else path.parent
    file = directory / "tokenizer.json"
    if not file.is_file() and (directory / ranks.FILE).is_file():
        return _of_ranks(directory / ranks.FILE, metadata, links or Links.of(path))
    if not file.is_file():
        raise TokenizerError(f"{directory} has no tokenizer.json and no {ranks.FILE}; other tokenizer files are not read")
    (links or Links.of(path)).check(file)
    core = _open(file)
    _add_tokens(core, metadata)
    parts = _stages(core)
    check_regexes(parts)
    check_steps(parts["normalizer"])
    vocabulary = _vocabulary(core, _spelling(parts))
    settings = _Settings(metadata, vocabulary)
    added = core.get_added_tokens_decoder()
    bos = settings.token("bos")
    return Parts(
        kind="bpe" if vocabulary.spelling == "bytes" else "spm",
        vocabulary=vocabulary,
        build=lambda: _cores(core, parts["pre_tokenizer"]),
        bos=bos,
        eos=settings.token("eos"),
        add_bos=bos is not None and settings.add_bos(core, bos),
        end=settings.end(core),
        stop_ids=vocabulary.stops(settings.stops()),
        strip_first_space=_strips(parts["decoder"]),
        left_strip=frozenset(i for i, token in added.items() if token.lstrip),
        right_strip=frozenset(i for i, token in added.items() if token.rstrip),
    )


def _of_ranks(file: Path, metadata: Mapping[str, Any], links: Links) -> Parts:
    """Ranks alone: what stands behind them is told by tokenizer_config.json."""
    config = _file(metadata, "tokenizer_config.json")
    pre = ranks.pre_tokenizer_of(config)
    links.check(file)
    pieces = ranks.read_ranks(read_named(file, MAX_FILE, TokenizerError))
    added, count = _given_tokens(config.get("added_tokens_decoder", {})), len(pieces)
    size = max(added, default=count - 1) + 1
    if min(added, default=count) < count or size > MAX_PIECES or not {t.content for t in added.values()}.isdisjoint(pieces):
        raise TokenizerError(f"tokenizer_config.json adds tokens that do not stand behind the {count} pieces of {file.name}")
    pieces += [added[i].content if i in added else f"[UNUSED_{i}]" for i in range(count, size)]
    types = np.full(size, TokenType.NORMAL, np.uint8)
    types[count:] = TokenType.UNUSED
    for i, token in added.items():
        types[i] = TokenType.CONTROL if token.special else TokenType.USER
    vocabulary = Vocabulary(pieces, types, "bytes")
    settings = _Settings(metadata, vocabulary)
    return Parts(
        kind="bpe",
        vocabulary=vocabulary,
        build=lambda: (byte_level(vocabulary, ranks.merges_of(pieces[:count]), pre),),
        bos=settings.token("bos"),
        eos=settings.token("eos"),
        add_bos=settings.says("add_bos_token") and settings.token("bos") is not None,
        end=settings.token("eos") if settings.says("add_eos_token") else None,
        stop_ids=vocabulary.stops(settings.stops()),
    )


def _open(file: Path) -> hf.Tokenizer:
    text = read_named(file, MAX_FILE, TokenizerError)
    check_file(text)
    with guarded(str(file)):
        core = hf.Tokenizer.from_buffer(text)
    if not isinstance(core.model, (models.BPE, models.Unigram)):
        raise TokenizerError(f"{file}: models of type {type(core.model).__name__} are not supported; BPE and Unigram are")
    if isinstance(core.model, models.BPE):
        core.model.dropout = None  # of merges, for training: a text would have other ids each time
    core.no_truncation()
    core.no_padding()
    core.encode_special_tokens = True  # special tokens in a user's text are text
    return core


def _add_tokens(core: hf.Tokenizer, metadata: Mapping[str, Any]) -> None:
    """Tokens that tokenizer_config.json adds or changes, of older directories added_tokens.json. TokenizerError for odd ones."""
    config, older = _file(metadata, "tokenizer_config.json"), _file(metadata, "added_tokens.json")
    given = config.get("added_tokens_decoder")
    if given is None:
        named = [*config.values(), *_file(metadata, "special_tokens_map.json").values()]
        special = {_spelling_of(token) for value in named for token in (value if isinstance(value, list) else [value])}
        given = {i: {"content": text, "special": text in special, "normalized": text not in special} for text, i in older.items()}
    tokens = _given_tokens(given)
    known = {i for i, token in tokens.items() if core.token_to_id(token.content) is not None}
    with guarded("added_tokens_decoder in tokenizer_config.json"):
        core.add_tokens(list(tokens.values()))
    for i in tokens.keys() - known:
        if core.token_to_id(tokens[i].content) != i:
            raise TokenizerError(
                f"tokenizer_config.json adds the token {tokens[i].content[:40]!r} with the id {i}; the next free one of "
                f"tokenizer.json is {core.token_to_id(tokens[i].content)}, so the two files do not belong together"
            )


def _given_tokens(given: Any) -> dict[int, hf.AddedToken]:
    """added_tokens_decoder, ascending."""
    if not isinstance(given, dict) or len(given) > MAX_PIECES:
        raise TokenizerError("added_tokens_decoder in tokenizer_config.json must be an object of tokens by id")
    return dict(sorted(_added_token(key, token) for key, token in given.items()))


def _added_token(key: Any, token: Any) -> tuple[int, hf.AddedToken]:
    """An entry of added_tokens_decoder."""
    text, number = _spelling_of(token) if isinstance(token, dict) else None, str(key)
    flags = {name: token.get(name, name == "normalized" and not token.get("special")) for name in _FLAGS} if text else {}
    if not text or len(text) > MAX_PIECE_LENGTH or not re.fullmatch(r"\d{1,9}", number) or set(map(type, flags.values())) != {bool}:
        raise TokenizerError(f"tokenizer_config.json adds the token {number[:20]!r} in a way that is not known: {str(token)[:100]}")
    return int(number), hf.AddedToken(text, **flags)


def _spelling_of(token: Any) -> str | None:
    """A token is a text, or an object with one."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _file(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A JSON file of the directory, if it is there and holds an object."""
    value = metadata.get(name)
    return value if isinstance(value, dict) else {}


def _stages(core: hf.Tokenizer) -> dict[str, Any]:
    """The JSON of the normalizer, pre_tokenizer and decoder; None where there is none."""
    stages = {name: getattr(core, name) for name in ("normalizer", "pre_tokenizer", "decoder")}
    return {name: None if stage is None else json.loads(stage.__getstate__()) for name, stage in stages.items()}


def _spelling(stages: Mapping[str, Any]) -> str:
    kinds = {step.get("type") for name in ("decoder", "pre_tokenizer") for step in flat(stages[name])}
    if "ByteLevel" in kinds:
        return "bytes"
    if kinds & {"ByteFallback", "Metaspace", "Replace"}:
        return "spaces"
    raise TokenizerError(f"tokenizer.json has an unsupported decoder ({', '.join(sorted(map(str, kinds))) or 'no decoder'})")


def _strips(decoder: Any) -> bool:
    for step in flat(decoder):
        if step.get("type") == "Strip" and step.get("content") == " " and step.get("start"):
            return True
        if step.get("type") == "Metaspace":
            return bool(step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space", True))
    return False


def _vocabulary(core: hf.Tokenizer, spelling: str) -> Vocabulary:
    ids = core.get_vocab(with_added_tokens=True)
    size = max(ids.values(), default=-1) + 1
    if size > MAX_PIECES:
        raise TokenizerError(f"tokenizer.json has the token id {size - 1}; at most {MAX_PIECES} ids are accepted")
    pieces = [f"[UNUSED_{i}]" for i in range(size)]
    types = np.full(size, TokenType.UNUSED, np.uint8)
    for piece, i in ids.items():
        pieces[i] = piece
    types[list(ids.values())] = TokenType.NORMAL
    if spelling == "spaces":
        types[[ids[f"<0x{value:02X}>"] for value in range(256) if f"<0x{value:02X}>" in ids]] = TokenType.BYTE
    unknown = getattr(core.model, "unk_token", None)
    if unknown in ids:
        types[ids[unknown]] = TokenType.UNKNOWN
    for i, token in core.get_added_tokens_decoder().items():
        types[i] = types[i] if types[i] == TokenType.UNKNOWN else TokenType.CONTROL if token.special else TokenType.USER
    return Vocabulary(pieces, types, spelling)


def _cores(core: hf.Tokenizer, pre_tokenizer: Any) -> tuple[hf.Tokenizer, ...]:
    """The tokenizer, and a second one for text after a control token where only the start of a text gets a space."""
    if (
        not isinstance(pre_tokenizer, dict)
        or pre_tokenizer.get("type") != "Metaspace"
        or pre_tokenizer.get("prepend_scheme") != "first"
    ):
        return (core,)
    inner = hf.Tokenizer(core.model)
    if core.normalizer is not None:
        inner.normalizer = core.normalizer
    inner.pre_tokenizer = pre_tokenizers.Metaspace(pre_tokenizer["replacement"], "never", pre_tokenizer.get("split", True))
    added = core.get_added_tokens_decoder()
    inner.add_tokens([added[i] for i in sorted(added)])
    inner.encode_special_tokens = True
    same = {i: token.content for i, token in inner.get_added_tokens_decoder().items()} == {i: t.content for i, t in added.items()}
    return (core, inner) if same else (core,)


class _Settings:
    """bos, eos and stop ids as the JSON files beside tokenizer.json give them."""

    def __init__(self, metadata: Mapping[str, Any], vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._model, self._generation, self._config = (
            _file(metadata, name) for name in ("config.json", "generation_config.json", "tokenizer_config.json")
        )
        if "added_tokens_decoder" not in self._config:  # of older directories
            self._config = {**self._config, **_file(metadata, "special_tokens_map.json")}

    def _ids(self, value: Any) -> list[int]:
        """Ids of a JSON value: a number, a list of them, or none."""
        numbers = value if isinstance(value, list) else [] if value is None else [value]
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 32:
                raise TokenizerError(f"a token id in the configuration is {number!r}")
        return [number for number in numbers if number < len(self._vocabulary)]

    def token(self, name: str) -> int | None:
        """The bos or eos id: spelt in tokenizer_config.json, else a number in config.json."""
        key = f"{name}_token"
        text = _spelling_of(self._config.get(key))
        if text is not None and text in self._vocabulary.ids:
            return self._vocabulary.ids[text]
        if self._config.get(key, "") is None:
            return None
        ids = self._ids(self._generation.get(f"{key}_id", self._model.get(f"{key}_id")))
        return ids[0] if ids else None

    def stops(self) -> set[int]:
        """Every end id of generation_config.json, config.json and the tokenizer."""
        found = {self.token("eos")} - {None}
        for file in (self._generation, self._model, _file(self._model, "text_config")):
            found.update(self._ids(file.get("eos_token_id")))
        return {token for token in found if token is not None}

    def says(self, name: str) -> bool:
        """Whether tokenizer_config.json switches it on."""
        return self._config.get(name) is True

    def end(self, core: hf.Tokenizer) -> int | None:
        """tokenizer_config.json decides whether it is EOS; without its word, it is what the post-processor puts behind a text."""
        said = self._config.get("add_eos_token")
        if isinstance(said, bool):
            return self.token("eos") if said else None
        with guarded("tokenizer.json"):
            whole, text = (core.encode("a", add_special_tokens=special).ids for special in (True, False))
        return whole[-1] if whole[-1:] != text[-1:] else None

    def add_bos(self, core: hf.Tokenizer, bos: int) -> bool:
        """tokenizer_config.json decides; without its word, whether the post-processor puts BOS in front."""
        said = self._config.get("add_bos_token")
        if isinstance(said, bool):
            return said
        with guarded("tokenizer.json"):
            ids: list[int] = core.encode("a", add_special_tokens=True).ids
        return ids[:1] == [bos]
