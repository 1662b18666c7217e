"""The text of docs/architectures.md: from the rows of `models/architectures`, the programs of the tiny checkpoints and the
comparisons with llama.cpp. The guide at its end is written by hand, in tools/add_an_architecture.md.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.checkpoints import GOLDEN, config_of, tiny

from lacewing.formats import open_checkpoint
from lacewing.models import architectures, known_architectures, open_model
from lacewing.models.architecture import Architecture
from lacewing.models.missing import BLOCKS
from lacewing.program import ops
from lacewing.program.program import Program
from lacewing.program.states import PagedState

PAGE = Path(__file__).parent.parent / "docs" / "architectures.md"
COMPARED = Path(__file__).parent.parent / "tests" / "data" / "llama_cpp.json"
GUIDE = Path(__file__).parent / "add_an_architecture.md"
ELSEWHERE = {"gptoss": "`tests/models/test_ollama.py`"}  # of rows without a case
HEAD = """# Architectures

`tools/make_docs.py` makes the tables of this page from the rows in `models/architectures/`, from the programs of the tiny
checkpoints that the tests use, and from what `tools/compare_llama_cpp.py` has measured. Every architecture runs from GGUF files and
from Hugging Face directories, on the CPU, on WebGPU and on the reference backend, in every quant of the README's table. Images and
sound of multimodal checkpoints are left out.

*blocks*: what stands in the layers besides the linear layers and norms of a Llama (attention with RoPE, a gated feed-forward).
*tested by*: tiny random checkpoints whose logits and greedy tokens are compared with those of transformers (`tests/data/golden/`).
*llama.cpp*: the largest difference between its logits and those of transformers for the same weights, in a file made by its own
converter; the largest logits of these checkpoints are about 5. Its KV cache is of float16 there. A dash: not compared, or
not run by it.

| architecture | models | blocks | quants | tested by | llama.cpp |
|---|---|---|---|---|---|
"""
MISSING_HEAD = """
## What is not here

What `lacewing info` says of them: the names that GGUF files and `config.json` use, by what they need that is not here.

| needs | architectures |
|---|---|
"""
_PLAIN = (ops.Embed, ops.Linear, ops.Norm, ops.AddNorm, ops.Rope, ops.WriteKeysValues, ops.Attention, ops.HeadLinear,
          ops.ExpertLinear, ops.Logits)  # fmt: skip


def page() -> str:
    """The whole page. Raises KeyError for a row that says nothing of its models."""
    rows = "".join(_row(name) for name in known_architectures())
    missing = "".join(
        f"| {block} | {', '.join(f'`{name}`' for name in sorted(names.split()))} |\n" for block, names in BLOCKS.items()
    )
    return f"{HEAD}{rows}{MISSING_HEAD}{missing}\n{GUIDE.read_text(encoding='utf-8')}"


def _row(file: str) -> str:
    row: Architecture = importlib.import_module(f"{architectures.__name__}.{file}").ARCHITECTURE
    if not row.models:
        raise KeyError(f"{file}.py says nothing of its models")
    cases = [name for name in GOLDEN if config_of(name)["model_type"] in (row.name, file, *row.also)]
    quants = "all; MXFP4 as Hugging Face packs it" if row.packed_experts else "all"
    tested = ", ".join(f"`{name}`" for name in cases) or ELSEWHERE[file]
    blocks = ", ".join(_blocks(cases)) or "those of a Llama"
    return f"| `{file}` | {row.models} | {blocks} | {quants} | {tested} | {_compared(cases)} |\n"


def _compared(cases: list[str]) -> str:
    found = json.loads(COMPARED.read_text(encoding="utf-8")) if COMPARED.exists() else {}
    differences = [found[name] for name in cases if name in found]
    return f"{max(differences):.0e}" if differences else "–"


def _blocks(cases: list[str]) -> list[str]:
    """Of one case for each model type: what its program has that a Llama's has not, each once."""
    first = {config_of(name)["model_type"]: name for name in reversed(cases)}
    found: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in reversed(first.values()):
            program = open_model(open_checkpoint(tiny(name, "huggingface", Path(folder)))).program
            found |= dict.fromkeys(_words(program))
    return list(found)


def _words(program: Program) -> Iterator[str]:
    inner = [op for op in program.ops if isinstance(op, ops.Combine) and op.add == op.out and op.out.buffer.name == "x"]
    attentions, names = [op for op in program.ops if isinstance(op, ops.Attention)], " ".join(program.weights)
    found = {
        "latent attention": any(isinstance(state, PagedState) and state.latent for state in program.states),
        "sliding windows": any(op.window for op in attentions),
        "chunks": any(op.chunk for op in attentions),
        "sinks": any(op.sinks for op in attentions),
        "soft-caps": any(op.softcap for op in attentions),
        "layers without RoPE": sum(isinstance(op, ops.Rope) for op in program.ops) < 2 * len(attentions),
        "norms of queries and keys": ".attn_q_norm." in names,
        "LayerNorm": any(isinstance(op, ops.Norm | ops.AddNorm) and op.centred for op in program.ops),
        "parallel attention and feed-forward": ".ffn_norm." not in names and ".post_attention_norm." not in names and bool(inner),
        "norms after branches": ".post_attention_norm." in names and ".post_ffw_norm." in names,
    }
    yield from (word for word, holds in found.items() if holds)
    for op in program.ops:
        if isinstance(op, ops.Route):
            yield f"mixture of experts ({op.gating}{', bias' if op.bias else ''}{', groups' if op.groups > 1 else ''})"
        elif isinstance(op, ops.Combine):
            yield from ("shared experts" for _ in (op.add,) if op.add is not None and op.add.buffer.name != "x")
        elif isinstance(op, ops.SelectKeys):
            yield "attention to positions that a lightning indexer chooses"
        elif isinstance(op, ops.GatedActivation):
            yield from ("GELU" for _ in (op,) if op.activation == "gelu_tanh")
        elif not isinstance(op, _PLAIN):
            yield "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in op.kind).strip()
