"""Which layer an op belongs to, for every architecture, and the order in which experts stand together."""

from __future__ import annotations

import pytest

from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.offload.layers import OpLayer, experts_together, op_layers
from lacewing.program.check import check_program
from lacewing.program.ops import Combine, Embed, ExpertLinear, Logits, Route, WriteKeysValues
from tests.checkpoints import CASES, tiny
from tests.models.running import mapped_weights, open_step, run
from tests.paged import with_pages
from tests.tolerance import assert_equal_up_to_rounding


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("-wide")])
def test_every_op_has_its_layer(name, tmp_path):
    spec = open_model(open_checkpoint(tiny(name, "huggingface", tmp_path)), 32)
    program = experts_together(spec.program)
    check_program(program)
    assert sorted(map(str, program.ops)) == sorted(map(str, spec.program.ops))
    found = op_layers(program)
    written: dict[int, int | None] = {}
    for op, place in zip(program.ops, found, strict=True):
        for index in op.state_ids:
            if not spec.config.shared_kv or isinstance(op, WriteKeysValues):
                assert written.setdefault(index, place.layer) == place.layer  # a state is of one layer
        assert {".".join(weight.split(".")[:2]) for weight in op.weight_names if "blk." in weight} <= {f"blk.{place.layer}"}
        chosen = isinstance(op, Combine) and op.x.buffer.name == "expert_outs"  # others only add
        assert place.experts or not (chosen or isinstance(op, Route | ExpertLinear))  # and activations between them
    assert isinstance(program.ops[0], Embed) and found[0] == OpLayer(None)
    assert isinstance(program.ops[-1], Logits) and found[-1] == OpLayer(None, head=True)
    layers = [place.layer for place in found if place.layer is not None]
    assert layers == sorted(layers) and set(layers) == set(range(spec.config.layers))
    assert list(written.values()) == sorted(written.values())  # in the order of the layers


@pytest.mark.parametrize("name", ["glm4moe", "deepseek2-lite", "llama4"])
def test_shared_experts_stand_before_the_router(name, tmp_path):
    path = tiny(name, "gguf", tmp_path)
    spec, whole = open_step(path, 32)
    program = experts_together(spec.program)
    assert program.ops != spec.program.ops
    for index, op in enumerate(program.ops):
        if isinstance(op, Route):
            kinds = [type(each).__name__ for each in program.ops[index : index + 5]]
            assert kinds == ["Route", "ExpertLinear", "GatedActivation", "ExpertLinear", "Combine"]
    other = with_pages(ReferenceBackend().compile(program, mapped_weights(dict(spec.tensors)), whole.limits))
    ids = [5, 9, 300, 2]
    assert_equal_up_to_rounding(run(other, ids), run(whole, ids))
