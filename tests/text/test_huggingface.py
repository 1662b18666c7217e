"""Tokenizers of Hugging Face directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from lacewing.errors import TokenizerError
from lacewing.formats.checkpoint import Checkpoint
from lacewing.text.guards import repeats_a_repeat
from lacewing.text.tokenizer import Tokenizer
from tests.text import vocabularies as v

PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *"▁heloworldta", "he", "ll", "hell", "hello", "▁hello"]
PIECES = list(dict.fromkeys(PIECES))
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello")]


def byte_level(**options: Any) -> hf.Tokenizer:
    """A byte-level tokenizer; special tokens 266 and on lie outside the model's vocabulary, as Qwen's do."""
    pieces = [*v.byte_alphabet(), *("".join(merge.split(" ")) for merge in v.MERGES)]
    merges = [tuple(merge.split(" ")) for merge in v.MERGES]
    core = hf.Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, **options))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([hf.AddedToken(text, normalized=False) for text in v.CHATML])
    core.add_tokens([hf.AddedToken("<tool_call>", normalized=False)])
    return core


def sentencepiece(scheme: str | None) -> hf.Tokenizer:
    """Llama 2's two ways: a normaliser that puts a space before every segment (None), or Metaspace with a scheme."""
    model = models.BPE({p: i for i, p in enumerate(PIECES)}, MERGES, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    core = hf.Tokenizer(model)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    if scheme is None:
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split=False)
    core.add_special_tokens([hf.AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    return core


def opened(core: hf.Tokenizer, folder: Path, **metadata: Any) -> Tokenizer:
    core.save(str(folder / "tokenizer.json"))
    files = {name.replace("__", "."): value for name, value in metadata.items()}
    return Tokenizer.from_checkpoint(Checkpoint(folder, "safetensors", files, {}))


def markup(core: hf.Tokenizer, text: str) -> list[int]:
    return core.encode(text, add_special_tokens=False).ids


TEXTS = ["hello world", "<|im_start|>hello<|im_end|>\n", "<tool_call>he</tool_call>", " hello  ", "<|im_end|><|im_end|>", ""]


def test_byte_level_equals_the_library(tmp_path: Path):
    core = byte_level()
    tokenizer = opened(core, tmp_path)
    assert [tokenizer.encode_markup(text) for text in TEXTS] == [markup(core, text) for text in TEXTS]
    assert [tokenizer.decode(tokenizer.encode(text)) for text in TEXTS] == TEXTS
    assert tokenizer.kind == "bpe" and tokenizer.vocab_size == core.get_vocab_size()
    assert not any(tokenizer.is_control(token) for text in TEXTS for token in tokenizer.encode(text))
    assert tokenizer.encode("<tool_call>") == [core.token_to_id("<tool_call>")]


@pytest.mark.parametrize("scheme", [None, "first", "always", "never"])
def test_sentencepiece_equals_the_library(tmp_path: Path, scheme: str | None):
    core = sentencepiece(scheme)
    tokenizer = opened(core, tmp_path)
    for text in ("hello", "<s>hello hello</s>hello", " hello", "<s> hello", "😀hello", "</s></s>"):
        assert tokenizer.encode_markup(text) == markup(core, text), text
        core.encode_special_tokens = True
        assert tokenizer.encode(text) == markup(core, text), text
        core.encode_special_tokens = False
        assert tokenizer.decode(tokenizer.encode_markup(text)) == core.decode(markup(core, text)), text


@pytest.mark.parametrize(
    "core", [byte_level(), byte_level(ignore_merges=True), sentencepiece(None), sentencepiece("first"), sentencepiece("never")]
)
def test_control_tokens_in_a_raw_prompt_on_request_only(tmp_path: Path, core: hf.Tokenizer):
    tokenizer = opened(core, tmp_path)
    control = {text: token for text, token in tokenizer.control_tokens.items() if tokenizer.is_control(token)}
    assert control
    for text, token in control.items():
        for before in ("", "hello", "hello ", "1", "\n", "<", "<|", text[:-1]):
            for after in ("", "hello", " hello", "\n\n", ">", "|>", text[1:]):
                prompt = before + text + after
                ids = tokenizer.encode_prompt(prompt, markup=True)
                assert ids.count(token) == 1 and ids == markup(core, prompt), prompt
                assert not any(map(tokenizer.is_control, tokenizer.encode_prompt(prompt))), prompt


def test_spaces_beside_special_tokens(tmp_path: Path):
    core = byte_level()
    core.add_special_tokens(
        [hf.AddedToken("<|end|>", rstrip=True, normalized=False), hf.AddedToken("<m>", lstrip=True, normalized=False)]
    )
    tokenizer = opened(core, tmp_path)
    for text in ("a<|end|>  b", "a  <m> b", "<|end|>\n\n<m>", "a <|end|>"):
        assert tokenizer.encode_markup(text) == markup(core, text)


def test_special_tokens_within_the_vocabulary_of_whole_words(tmp_path: Path):
    core = byte_level(ignore_merges=True)
    core.add_special_tokens(["hell"])
    tokenizer = opened(core, tmp_path)
    token = core.token_to_id("hell")
    assert tokenizer.encode_markup("hell") == [token]
    assert token not in tokenizer.encode("hell hell")
    assert tokenizer.decode(tokenizer.encode("hell hell")) == "hell hell"


def test_settings_of_the_configuration(tmp_path: Path):
    config = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "add_bos_token": True}
    tokenizer = opened(byte_level(), tmp_path, tokenizer_config__json=config, generation_config__json={"eos_token_id": [5, 6]})
    ids = {text: byte_level().token_to_id(text) for text in v.CHATML}
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (ids["<|im_start|>"], ids["<|im_end|>"], True)
    assert tokenizer.stop_ids == {5, 6, ids["<|im_end|>"], ids["<|endoftext|>"]}
    plain = opened(byte_level(), tmp_path, config__json={"eos_token_id": 7, "bos_token_id": None})
    assert (plain.bos_id, plain.eos_id, plain.add_bos) == (None, 7, False)


def test_bos_by_the_post_processor(tmp_path: Path):
    core = byte_level()
    bos = core.token_to_id("<|im_start|>")
    core.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)])
    tokenizer = opened(core, tmp_path, tokenizer_config__json={"bos_token": "<|im_start|>"})
    assert tokenizer.add_bos
    assert bos not in tokenizer.encode("hello")
    assert tokenizer.encode_prompt("hello")[0] == bos


def test_the_end_of_a_whole_text(tmp_path: Path):
    """As models of embeddings have it, whose end need not be EOS."""
    core = byte_level()
    end = core.token_to_id("<|endoftext|>")
    core.post_processor = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)])
    tokenizer = opened(core, tmp_path, tokenizer_config__json={"eos_token": "<|im_end|>"})
    assert tokenizer.encode_whole("hello") == [*tokenizer.encode("hello"), end]
    assert tokenizer.encode_prompt("hello") == tokenizer.encode("hello")
    said = opened(core, tmp_path, tokenizer_config__json={"eos_token": "<|im_end|>", "add_eos_token": True})
    assert said.encode_whole("hello")[-1] == core.token_to_id("<|im_end|>")
    never = opened(core, tmp_path, tokenizer_config__json={"eos_token": "<|im_end|>", "add_eos_token": False})
    assert never.encode_whole("hello") == never.encode("hello")


def added(text: str, **flags: bool) -> dict[str, Any]:
    return {"content": text, **dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized", "special"), False), **flags}


def test_tokens_that_tokenizer_config_adds(tmp_path: Path):
    core = byte_level()
    size = core.get_vocab_size()
    decoder = {
        str(size + 1): added("<user_made>"),
        str(size): added("<|fim|>", special=True, rstrip=True),
        str(core.token_to_id("<tool_call>")): added("<tool_call>", special=True),
        "3": added(core.id_to_token(3)),
    }
    tokenizer = opened(core, tmp_path, tokenizer_config__json={"added_tokens_decoder": decoder, "bos_token": "<|fim|>"})
    for i in sorted(decoder, key=int):
        text = decoder[i]["content"]
        core.add_tokens([hf.AddedToken(text, **{key: value for key, value in decoder[i].items() if key != "content"})])
    assert (tokenizer.vocab_size, tokenizer.bos_id) == (size + 2, size)
    assert (
        tokenizer.is_control(size) and tokenizer.is_control(core.token_to_id("<tool_call>")) and not tokenizer.is_control(size + 1)
    )
    for text in ("a<|fim|>  b", "<user_made>hello", "x<tool_call>y", "<|fim|><user_made>"):
        assert tokenizer.encode_markup(text) == markup(core, text), text
        assert not {size, core.token_to_id("<tool_call>")} & set(tokenizer.encode(text))
    assert tokenizer.encode("<user_made>") == [size + 1] and tokenizer.decode([size + 1]) == "<user_made>"
    assert tokenizer.decode([size]) == "" and tokenizer.decode([size], special=True) == "<|fim|>"


def test_tokens_of_older_directories(tmp_path: Path):
    core = byte_level()
    size = core.get_vocab_size()
    files = {
        "added_tokens__json": {"<user_made>": size + 1, "<|fim|>": size},
        "special_tokens_map__json": {"eos_token": {"content": "<|im_end|>"}, "additional_special_tokens": ["<|fim|>"]},
    }
    tokenizer = opened(core, tmp_path, tokenizer_config__json={"eos_token": "<|endoftext|>"}, **files)
    assert tokenizer.encode_markup("<|fim|>") == [size] and tokenizer.is_control(size) and not tokenizer.is_control(size + 1)
    assert tokenizer.encode("<user_made>") == [size + 1] and tokenizer.eos_id == core.token_to_id("<|im_end|>")


@pytest.mark.parametrize(
    "decoder",
    [
        [], "x", {"x": added("<a>")}, {"-1": added("<a>")}, {"1e3": added("<a>")}, {"9" * 5000: added("<a>")},
        {"500": added("<a>")}, {"270": added("<a>"), "4000000000": added("<b>")}, {"5": "<a>"}, {"5": {}}, {"5": {"content": 3}},
        {"5": {"content": ""}}, {"5": {"content": "a" * 70000}}, {"5": {**added("<a>"), "special": "yes"}},
        {"5": {**added("<a>"), "lstrip": None}},
    ],
)  # fmt: skip
def test_odd_added_tokens_are_refused(tmp_path: Path, decoder: Any):
    with pytest.raises(TokenizerError, match=r"added_tokens_decoder|tokenizer_config\.json adds the token"):
        opened(byte_level(), tmp_path, tokenizer_config__json={"added_tokens_decoder": decoder})


def test_truncation_of_the_file_is_ignored(tmp_path: Path):
    core = byte_level()
    core.enable_truncation(2)
    core.enable_padding(length=50)
    assert opened(core, tmp_path).decode(opened(core, tmp_path).encode("hello world")) == "hello world"


def test_weights_beside_the_tokenizer(tmp_path: Path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    checkpoint = Checkpoint(tmp_path / "model.safetensors", "safetensors", {}, {})
    assert Tokenizer.from_checkpoint(checkpoint).encode("hello")


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"version": "1.0"}', "\x00", '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}']
)
def test_damaged_files(tmp_path: Path, damage: str):
    (tmp_path / "tokenizer.json").write_text(damage)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Tokenizer.from_checkpoint(Checkpoint(tmp_path, "safetensors", {}, {}))


def test_missing_file(tmp_path: Path):
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        Tokenizer.from_checkpoint(Checkpoint(tmp_path, "safetensors", {}, {}))


def changed(folder: Path, change: dict[str, Any]) -> Checkpoint:
    (folder / "tokenizer.json").write_text(json.dumps({**json.loads(byte_level().to_str()), **change}))
    return Checkpoint(folder, "safetensors", {}, {})


def test_ids_far_outside(tmp_path: Path):
    model = {**json.loads(byte_level().to_str())["model"]}
    model["vocab"] = {**model["vocab"], "far": 4_000_000_000}
    with pytest.raises(TokenizerError, match="4000000000"):
        Tokenizer.from_checkpoint(changed(tmp_path, {"model": model}))


@pytest.mark.parametrize("number", ["5", -1, 1.5, True, 2**40])
def test_ids_of_the_configuration_are_checked(tmp_path: Path, number: Any):
    with pytest.raises(TokenizerError, match="token id"):
        opened(byte_level(), tmp_path, config__json={"eos_token_id": number})


def test_exponential_regexes_are_refused(tmp_path: Path):
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    with pytest.raises(TokenizerError, match="exponential"):
        Tokenizer.from_checkpoint(changed(tmp_path, {"pre_tokenizer": split}))


@pytest.mark.parametrize(
    ("regex", "refused"),
    [
        ("(a+)+", True), ("(a*)*", True), ("(?:a|b+)*", True), ("((a+))+x", True), ("(a+b?){2,}", True), ("(?i:x+)+", True),
        ("a+", False), ("(ab)+", False), ("(a+)?", False), ("(a+){3}", False), ("[(a+)+]+", False), (r"\(a+\)+", False),
        (r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\s+(?!\S)|\s+", False), ("(a++)+", False), ("(?=a+)b+", False),
    ],
)  # fmt: skip
def test_which_regexes_are_exponential(regex: str, refused: bool):
    assert repeats_a_repeat(regex) is refused


def test_our_own_regexes_pass():
    from lacewing.text.pretokenizers import PRE_TOKENIZERS

    assert not any(repeats_a_repeat(regex) for pre in PRE_TOKENIZERS.values() for regex in pre.regexes)


def with_model(**change: Any) -> dict[str, Any]:
    return {"model": {**json.loads(byte_level().to_str())["model"], **change}}


REPLACE = {"type": "Replace", "pattern": {"Regex": "."}, "content": "y" * 30}
NORMALIZERS: list[dict[str, Any]] = [
    {"type": "Sequence", "normalizers": [REPLACE] * 8},
    {"type": "Replace", "pattern": {"String": "e"}, "content": "y" * 65},
    {"type": "Replace", "pattern": {"String": ""}, "content": "y"},
    {"type": "Precompiled", "precompiled_charsmap": "/////w=="},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Precompiled", "precompiled_charsmap": "/////w==", "normalizers": []},
    {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "AAAA", "decoders": []}]},
]


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("spelt", ["as it is", "in numbers"])
def test_normalizers_that_could_fill_the_memory_are_refused(tmp_path: Path, normalizer: dict[str, Any], spelt: str):
    """The library would end the process, some of them before it has read the file."""
    checkpoint = changed(tmp_path, {"normalizer": normalizer})
    if spelt == "in numbers":
        file = tmp_path / "tokenizer.json"
        file.write_text(file.read_text().replace("Precompiled", "Pr\\u0065compiled"))
    with pytest.raises(TokenizerError, match="normalizer"):
        Tokenizer.from_checkpoint(checkpoint)


def test_letters_in_numbers_are_no_fault(tmp_path: Path):
    checkpoint = changed(tmp_path, {"normalizer": {"type": "NFC"}})
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace("NFC", "N\\u0046C"))
    assert Tokenizer.from_checkpoint(checkpoint).encode("hello")


@pytest.mark.parametrize(
    "change",
    [
        with_model(continuing_subword_prefix="much too long"),
        with_model(unk_token="<none such>", vocab={"h": 0}, merges=[]),
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}]}},
        {"model": {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0]], "byte_fallback": False}},
    ],
    ids=["a panic when opened", "an unknown token that is not there", "a panic when used", "no unknown token"],
)
def test_failures_of_the_library_are_errors_of_ours(tmp_path: Path, change: dict[str, Any]):
    with pytest.raises(TokenizerError):
        Tokenizer.from_checkpoint(changed(tmp_path, change)).encode("hello")


def test_merges_are_not_dropped_by_chance(tmp_path: Path):
    tokenizer = Tokenizer.from_checkpoint(changed(tmp_path, with_model(dropout=0.9)))
    assert {tuple(tokenizer.encode("hello world")) for _ in range(20)} == {tuple(byte_level().encode("hello world").ids)}
