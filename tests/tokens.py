"""A small byte-level BPE vocabulary of 320 tokens with a chat template, for the tiny checkpoints."""

from __future__ import annotations

from typing import Any

_MERGED = """Ġ t|h e|Ġt he|i n|Ġ a|Ġ w|o u|e r|o n|Ġ s|h a|n d|Ġa nd|i s|e n|r e|Ġ i|Ġ o|Ġ h|a t|Ġ y|Ġy ou|Ġo f|Ġ b|Ġ c|Ġ f
l l|o r|e s|i t|e d|Ġ m|Ġ d|Ġt o|in g|Ġ p|Ġi s|Ġi n|H e|He ll|Hell o|o w|a s|u t|a n|o m|Ġ n|e l|Ġw or|Ġwor l
Ġworl d|a r|c h|v e|Ġ g|s t|Ġb e|l e|Ġf or"""
MERGES = _MERGED.replace("\n", "|").split("|")
SPECIALS = ["<|pad|>", "<|start|>", "<|im_start|>", "<|im_end|>"]  # the last ids; start is 317 and im_end 319
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(256 + others.index(byte)) for byte in range(256)]


def vocabulary(size: int) -> list[str]:
    """`size` tokens: bytes, merges, fillers, specials."""
    tokens = byte_letters() + ["".join(merge.split(" ")) for merge in MERGES]
    return tokens + [f"[UNUSED{i}]" for i in range(size - len(tokens) - len(SPECIALS))] + SPECIALS


def tokenizer_json(size: int) -> dict[str, Any]:
    tokens = vocabulary(size)
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": i, "content": text, "special": True, **plain} for i, text in enumerate(tokens) if text in SPECIALS]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "pre_tokenizer": level,
        "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {text: i for i, text in enumerate(tokens)}, "merges": MERGES},
    }  # fmt: skip


def tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "add_bos_token": False,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
