"""The tokenizer of a Hugging Face directory: `tokenizer.json`, with the settings of `tokenizer_config.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as hf
from tokenizers import models, pre_tokenizers

from lacewing.errors import TokenizerError
from lacewing.formats.files import check_inside
from lacewing.text.library import guarded
from lacewing.text.normalizers import check_file, check_steps
from lacewing.text.parts import Parts
from lacewing.text.regexes import check_regexes
from lacewing.text.vocabulary import MAX_PIECES, TokenType, Vocabulary

MAX_FILE = 128 << 20


def from_directory(path: Path, metadata: Mapping[str, Any]) -> Parts:
    """The parts of the tokenizer of a directory (or of the directory of a .safetensors file)."""
    directory = path if path.is_dir() else path.parent
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise TokenizerError(f"{directory} has no tokenizer.json; other tokenizer files are not read")
    check_inside(file, directory)
    core = _open(file)
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
        stop_ids=vocabulary.stops(settings.stops()),
        strip_first_space=_strips(parts["decoder"]),
        left_strip=frozenset(i for i, token in added.items() if token.lstrip),
        right_strip=frozenset(i for i, token in added.items() if token.rstrip),
    )


def _open(file: Path) -> hf.Tokenizer:
    if file.stat().st_size > MAX_FILE:
        raise TokenizerError(f"{file} is larger than {MAX_FILE} bytes")
    text = file.read_bytes()
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


def _stages(core: hf.Tokenizer) -> dict[str, Any]:
    """The JSON of the normalizer, pre_tokenizer and decoder; None where there is none."""
    stages = {name: getattr(core, name) for name in ("normalizer", "pre_tokenizer", "decoder")}
    return {name: None if stage is None else json.loads(stage.__getstate__()) for name, stage in stages.items()}


def _flat(stage: Any) -> list[dict[str, Any]]:
    """The steps of a stage, sequences unrolled."""
    if not isinstance(stage, dict):
        return []
    for key in ("decoders", "pretokenizers", "normalizers"):
        if key in stage:
            return [step for inner in stage[key] for step in _flat(inner)]
    return [stage]


def _spelling(stages: Mapping[str, Any]) -> str:
    kinds = {step.get("type") for name in ("decoder", "pre_tokenizer") for step in _flat(stages[name])}
    if "ByteLevel" in kinds:
        return "bytes"
    if kinds & {"ByteFallback", "Metaspace", "Replace"}:
        return "spaces"
    raise TokenizerError(f"tokenizer.json has an unsupported decoder ({', '.join(sorted(map(str, kinds))) or 'no decoder'})")


def _strips(decoder: Any) -> bool:
    for step in _flat(decoder):
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
        self._files = {name: value for name, value in metadata.items() if isinstance(value, dict)}

    def _file(self, name: str) -> Mapping[str, Any]:
        return self._files.get(name, {})

    def _ids(self, value: Any) -> list[int]:
        """Ids of a JSON value: a number, a list of them, or none."""
        numbers = value if isinstance(value, list) else [] if value is None else [value]
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 32:
                raise TokenizerError(f"a token id in the configuration is {number!r}")
        return [number for number in numbers if number < len(self._vocabulary)]

    def token(self, name: str) -> int | None:
        """The bos or eos id: spelt in tokenizer_config.json, else a number in config.json."""
        spelt = self._file("tokenizer_config.json").get(f"{name}_token")
        text = spelt.get("content") if isinstance(spelt, dict) else spelt
        if isinstance(text, str) and text in self._vocabulary.ids:
            return self._vocabulary.ids[text]
        if "tokenizer_config.json" in self._files and spelt is None and f"{name}_token" in self._file("tokenizer_config.json"):
            return None
        ids = self._ids(
            self._file("generation_config.json").get(f"{name}_token_id", self._file("config.json").get(f"{name}_token_id"))
        )
        return ids[0] if ids else None

    def stops(self) -> set[int]:
        """Every end id of generation_config.json, config.json and the tokenizer."""
        found = {self.token("eos")} - {None}
        text = self._file("config.json").get("text_config")
        for file in (self._file("generation_config.json"), self._file("config.json"), text if isinstance(text, dict) else {}):
            found.update(self._ids(file.get("eos_token_id")))
        return {token for token in found if token is not None}

    def add_bos(self, core: hf.Tokenizer, bos: int) -> bool:
        """tokenizer_config.json decides; without its word, whether the post-processor puts BOS in front."""
        said = self._file("tokenizer_config.json").get("add_bos_token")
        if isinstance(said, bool):
            return said
        with guarded("tokenizer.json"):
            ids: list[int] = core.encode("a", add_special_tokens=True).ids
        return ids[:1] == [bos]
