"""How large a model is: its parameters as their makers count them, and the bytes that decide memory and speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lacewing.formats.checkpoint import TensorInfo
from lacewing.program.ops import Embed, ExpertLinear, Logits, Route
from lacewing.program.program import Program


@dataclass(frozen=True)
class ModelSizes:
    """Parameters and bytes, of everything and of what a token uses. Of an embedding that is not the output a token reads a row.

    `layer_expert_bytes`: of one expert, by the layer of its router.
    """

    parameters: int
    active_parameters: int  # that a token is multiplied by, as the makers count them
    weight_bytes: int
    active_bytes: int  # read for a token
    expert_bytes: int = 0  # of `weight_bytes`, the part of which a token uses the active experts only
    active_expert_bytes: int = 0
    layer_expert_bytes: Mapping[int, int] = field(default_factory=dict)
    table_bytes: int = 0  # of `weight_bytes`, tables that stay in their files; a token reads a row of each


def measure(program: Program, tensors: Mapping[str, TensorInfo], uncounted: Sequence[str] = ()) -> ModelSizes:
    """`uncounted`: weights that do not count as active parameters of a mixture. There is no one way to count: Meta, Qwen,
    Mistral (Mixtral) and AllenAI count the embedding, DeepSeek, Moonshot, OpenAI and Mistral (Large 3) do not, and Zhipu counts
    neither the embedding nor the output. All count the weights of a dense model, but no tables that are read by rows.
    """
    experts = {name: op for op in program.ops if isinstance(op, ExpertLinear) for name in (*op.weights, *filter(None, op.biases))}
    embedding, output = (  # None: of a part that has none
        next((op.weight for op in program.ops if isinstance(op, kind)), None) for kind in (Embed, Logits)
    )
    tables, table_bytes = program.tables, 0
    parameters = active_parameters = weight_bytes = active_bytes = expert_bytes = active_expert_bytes = 0
    for name in program.weights:
        tensor = tensors[name]
        nbytes = _nbytes(tensor, tensors)
        elements, read = tensor.elements, nbytes
        if name in experts:
            elements, read = (count // tensor.shape[0] * experts[name].ids.width for count in (elements, nbytes))
            expert_bytes, active_expert_bytes = expert_bytes + nbytes, active_expert_bytes + read
        elif name == embedding != output:
            read = nbytes // tensor.shape[0]
        elif name in tables:
            elements, read = 0, nbytes // tensor.shape[0]
            table_bytes += nbytes
        if experts and name in uncounted and name != (output if embedding == output else None):
            elements = 0
        parameters, weight_bytes = parameters + tensor.elements, weight_bytes + nbytes
        active_parameters, active_bytes = active_parameters + elements, active_bytes + read
    layers = _layer_expert_bytes(program, tensors)
    return ModelSizes(
        parameters, active_parameters, weight_bytes, active_bytes, expert_bytes, active_expert_bytes, layers, table_bytes
    )


def _nbytes(tensor: TensorInfo, tensors: Mapping[str, TensorInfo]) -> int:
    """With its scales."""
    return tensor.nbytes + (tensors[tensor.scales].nbytes if tensor.scales is not None else 0)


def _layer_expert_bytes(program: Program, tensors: Mapping[str, TensorInfo]) -> dict[int, int]:
    found: dict[int, int] = {}
    layer = 0
    for op in program.ops:
        if isinstance(op, Route):
            layer = op.layer
        if isinstance(op, ExpertLinear):
            each = [tensors[name] for name in (*op.weights, *filter(None, op.biases))]
            found[layer] = found.get(layer, 0) + sum(_nbytes(tensor, tensors) // tensor.shape[0] for tensor in each)
    return found
