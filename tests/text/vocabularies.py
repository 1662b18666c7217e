"""Tiny vocabularies as GGUF metadata, and as opened checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lacewing.formats.checkpoint import Checkpoint
from lacewing.text.tokenizer import Tokenizer
from lacewing.text.vocabulary import byte_alphabet

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "Ġ Ġ"]


def byte_level(**changes: Any) -> dict[str, Any]:
    """GPT-2 style: the control tokens 0 to 2 of ChatML, 256 bytes, merged pieces, a user-defined token, padding."""
    merged = ["".join(pair.split(" ")) for pair in MERGES]
    tokens = [*CHATML, *byte_alphabet(), *merged, "<tool>", "\n\n\n", "[PAD0]"]
    types = [CONTROL] * 3 + [NORMAL] * (256 + len(merged)) + [USER, USER, UNUSED]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **_keys(changes),
    }


def sentencepiece(**changes: Any) -> dict[str, Any]:
    """SentencePiece style: <unk>, <s>, </s>, 256 bytes, scored pieces, a user-defined run of spaces, a control token."""
    scored = [*"▁heloworldta", "he", "ll", "hell", "hello", "▁hello", "▁w", "or", "▁wor", "ld", "▁world", "é", "世"]
    scored = list(dict.fromkeys(scored))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *scored, "  ", "<|end|>"]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(scored) + [USER, CONTROL]
    scores = [0.0] * 259 + [-float(i) for i in range(len(scored))] + [0.0, 0.0]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        **_keys(changes),
    }


def _keys(changes: dict[str, Any]) -> dict[str, Any]:
    return {f"tokenizer.ggml.{key}": value for key, value in changes.items()}


def checkpoint(metadata: dict[str, Any], **more: Any) -> Checkpoint:
    return Checkpoint(Path("tiny.gguf"), "gguf", {**metadata, **more}, {})


def tokenizer(metadata: dict[str, Any], **more: Any) -> Tokenizer:
    return Tokenizer.from_checkpoint(checkpoint(metadata, **more))


def spelt(metadata: dict[str, Any], *pieces: str) -> list[int]:
    """Ids of pieces."""
    return [metadata["tokenizer.ggml.tokens"].index(piece) for piece in pieces]
