"""The text of docs/architectures.md: from the rows of `models/architectures`, the programs of the tiny checkpoints and the
comparisons with llama.cpp. The guide at its end is written by hand, in tools/add_an_architecture.md.
"""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import fill

from tests.checkpoints import GOLDEN, config_of, tiny

from lacewing.formats import open_checkpoint
from lacewing.models import architectures, known_architectures, open_model
from lacewing.models.architecture import Architecture
from lacewing.models.missing import BLOCKS
from lacewing.program import ops, stream_ops
from lacewing.program.operands import Op
from lacewing.program.program import Program
from lacewing.program.states import PagedState

PAGE = Path(__file__).parent.parent / "docs" / "architectures.md"
COMPARED = Path(__file__).parent.parent / "tests" / "data" / "llama_cpp.json"
GUIDE = Path(__file__).parent / "add_an_architecture.md"
ELSEWHERE = {"gptoss": ("gpt_oss", "`tests/models/test_ollama.py`")}  # rows without a case: whose blocks they have, what tests them
FAR = 0.1  # a difference from llama.cpp above this needs a reason
REASONS = {
    "phimoe": "llama.cpp weighs the two chosen experts by their softmax, brought to a sum of 1; the model weighs them by "
    "SparseMixer. Lacewing's logits are those of transformers."
}
HEAD = """# Architectures

`tools/make_docs.py` makes the tables of this page from the rows in `models/architectures/`, from the programs of the tiny
checkpoints that the tests use, and from what `tools/compare_llama_cpp.py` has measured. Every architecture runs from GGUF files and
from Hugging Face directories (`gptoss`, Ollama's own form of gpt-oss, from GGUF files only), on the CPU, on WebGPU and on the
reference backend, in every quant of the README's table. Images and sound of multimodal checkpoints are left out.

*blocks*: what the layers have besides the linear layers and norms of a Llama, its attention with RoPE and its gated feed-forward
network. A row with several models lists what any of them has. In brackets after "mixture of experts": how the router scores the
experts, "bias" if a bias corrects the choice, and "groups" if it chooses groups of experts first.
*tested by*: tiny random checkpoints whose logits and greedy tokens are compared with those of transformers, or for `deepseek`,
which it lacks, of the makers' own code (`tests/data/golden/`).
*llama.cpp*: the largest difference between its logits and those of transformers for the same weights, in a file made by its own
converter; the largest logits of these checkpoints are about 5. Its KV cache is of float16 there. A dash: not compared, or
not run by it.

| architecture | models | blocks | quants | tested by | llama.cpp |
|---|---|---|---|---|---|
"""
MISSING_HEAD = """
## What is not here

What `lacewing info` says of them: the names that GGUF files and `config.json` use, by what they need that is not here.
[Two of them](next-architectures.md) are described block by block.

| needs | architectures |
|---|---|
"""
# Of each kind of op that a model may have: what a reader calls it; "" for what every model has or `_features` says.
WORDS: dict[type[Op], str] = {
    **dict.fromkeys((ops.Embed, ops.Linear, ops.Norm, ops.AddNorm, ops.Rope, ops.WriteKeysValues, ops.Attention, ops.Logits), ""),
    **dict.fromkeys((ops.HeadLinear, ops.SplitHeads, ops.GatedActivation, stream_ops.AddScale), ""),
    **dict.fromkeys((ops.Activation, ops.Route, ops.ExpertLinear, ops.Combine, stream_ops.MatchMagnitude), ""),
    ops.GatedDelta: "",
    ops.ScaleByPosition: "queries scaled by position",
    ops.SelectKeys: "sparse attention by a lightning indexer",
    ops.ShortConvolution: "short convolutions",
    ops.SelectiveScan: "state spaces (Mamba-2)",
    **dict.fromkeys((ops.ClampedActivation, ops.LimitedActivation), "clamped SwiGLU"),
    stream_ops.Lookup: "embeddings for each layer",
    stream_ops.AltUpPredict: "several residual streams (AltUp)",
    stream_ops.AltUpCorrect: "several residual streams (AltUp)",
    stream_ops.GaussianTopK: "sparse activations",
}
FUNCTIONS = {"relu2": "squared ReLU", "gelu": "GELU", "gelu_tanh": "GELU", "xielu": "xIELU"}
GATINGS = {"sparsemixer": "SparseMixer"}
_ROUTER = "router: "


def page() -> str:
    """The whole page. Raises KeyError for a row or an op about which the tables above say nothing."""
    rows = "".join(_row(name) for name in known_architectures())
    reasons = "".join(f"\n{fill(f'`{name}` beside llama.cpp: {reason}', 130)}\n" for name, reason in REASONS.items())
    missing = "".join(
        f"| {block} | {', '.join(f'`{name}`' for name in sorted(names.split()))} |\n" for block, names in BLOCKS.items()
    )
    return f"{HEAD}{rows}{reasons}{MISSING_HEAD}{missing}\n{GUIDE.read_text(encoding='utf-8')}"


def counted(readme: str) -> str:
    """README.md with the number of rows."""
    return re.sub(r"(?m)^(\| architectures \| )\d+ ", rf"\g<1>{len(known_architectures())} ", readme)


def _row(file: str) -> str:
    row: Architecture = importlib.import_module(f"{architectures.__name__}.{file}").ARCHITECTURE
    if not row.models:
        raise KeyError(f"{file}.py says nothing of its models")
    cases = [name for name in GOLDEN if config_of(name)["model_type"] in (row.name, file, *row.also)]
    quants, tested = "all", ", ".join(f"`{name}`" for name in cases)
    if cases:
        blocks = ", ".join(_blocks(cases)) or "those of a Llama"
        quants += "; MXFP4 as Hugging Face packs it" if row.packed_experts else ""
    else:
        like, tested = ELSEWHERE[file]
        blocks = f"those of `{like}`"
    return f"| `{file}` | {row.models} | {blocks} | {quants} | {tested} | {_compared(file, cases)} |\n"


def _compared(file: str, cases: list[str]) -> str:
    found = json.loads(COMPARED.read_text(encoding="utf-8")) if COMPARED.exists() else {}
    differences = [found[name] for name in cases if name in found]
    if not differences:
        return "–"
    most = max(differences)
    if most < FAR:
        return f"{most:.0e}"
    if file not in REASONS:
        raise KeyError(f"{file} is {most:g} from llama.cpp; say why in REASONS of tools/architecture_docs.py")
    return f"{most:.1f}; see below"


def _blocks(cases: list[str]) -> list[str]:
    """What the programs of these cases have that a Llama's has not, each once; experts last."""
    found: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in cases:
            program = open_model(open_checkpoint(tiny(name, "huggingface", Path(folder)))).program
            found |= dict.fromkeys(word for word, holds in _features(program).items() if holds)
            found |= dict.fromkeys(words(program.ops))
    routers = [word.removeprefix(_ROUTER) for word in found if word.startswith(_ROUTER)]
    plain = [word for word in found if "experts" not in word and not word.startswith(_ROUTER)]
    mixture = [f"mixture of experts ({'; '.join(routers)})"] if routers else []
    return [*plain, *mixture, *(word for word in found if "experts" in word)]


def words(program: Iterable[Op]) -> Iterator[str]:
    """What ops are called, one by one. Raises KeyError for a kind that has no words."""
    for op in program:
        if type(op) not in WORDS:
            raise KeyError(f"{op.kind} has no words; give it some in WORDS of tools/architecture_docs.py")
        if WORDS[type(op)]:
            yield WORDS[type(op)]
        elif isinstance(op, ops.Route):
            gating = GATINGS.get(op.gating, op.gating)
            yield f"{_ROUTER}{gating}{', bias' if op.bias else ''}{', groups' if op.groups > 1 else ''}"
        elif isinstance(op, ops.GatedDelta):
            yield f"linear attention (gated delta rule{', with a decay for each channel' if op.by_row else ''})"
        elif isinstance(op, ops.Activation) and op.function in FUNCTIONS:
            yield f"feed-forward without a gate ({FUNCTIONS[op.function]})"
        elif isinstance(op, ops.GatedActivation) and op.activation == "gelu_tanh":
            yield "GELU"


def _features(program: Program) -> dict[str, bool]:
    """What shows only in several ops, in their options or in the names of weights."""
    inner = [op for op in program.ops if isinstance(op, ops.Combine) and op.add == op.out and op.out.buffer.name == "x"]
    attentions, names = [op for op in program.ops if isinstance(op, ops.Attention)], " ".join(program.weights)
    gated = {op.up for op in program.ops if isinstance(op, ops.GatedActivation) and op.activation == "sigmoid"}
    turned = _turned(program)
    return {
        "latent attention": any(isinstance(state, PagedState) and state.latent for state in program.states),
        "sliding windows": any(op.window for op in attentions),
        "chunks": any(op.chunk for op in attentions),
        "sinks": any(op.sinks for op in attentions),
        "soft-caps": any(op.softcap for op in attentions),
        "attention without RoPE": bool(turned) and not any(turned),
        "layers without RoPE": any(turned) and not all(turned),
        "layers that share a KV cache": len({op.state for op in attentions}) < len(attentions),
        "gated attention": any(op.out in gated for op in attentions),
        "norms of queries and keys": ".attn_q_norm." in names,
        "LayerNorm": any(
            isinstance(op, ops.Norm | ops.AddNorm) and op.centred and "indexer" not in str(op.weight) for op in program.ops
        ),
        "parallel attention and feed-forward": ".ffn_norm." not in names and ".post_attention_norm." not in names and bool(inner),
        "attention beside Mamba-2 in every layer": {"blk.0.ssm_in.weight", "blk.0.attn_q.weight"} <= program.weights.keys(),
        "norms after branches": ".post_attention_norm." in names and ".post_ffw_norm." in names,
        "low-rank residual branches (LAuReL)": ".laurel_l." in names,
        "a factor for each layer": ".layer_output_scale." in names,
        "shared experts": "_shexp." in names,
        "experts in a latent space": ".ffn_latent_down." in names,
        "a dense feed-forward beside the experts": ".pre_ffw_norm_2." in names,
    }


def _turned(program: Program) -> list[bool]:
    """Of each attention: whether a RoPE stands between it and the attention before."""
    found, turned = list[bool](), False
    for op in program.ops:
        if isinstance(op, ops.Attention):
            found.append(turned)
        turned = isinstance(op, ops.Rope) or (turned and not isinstance(op, ops.Attention))
    return found
