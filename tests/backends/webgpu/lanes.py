"""`python -m tests.backends.webgpu.lanes LEAST`: the size of teams, and the errors of what is computed with them, as JSON.

LEAST: the threads that the driver is said to give a subgroup at least; 0: what it says itself.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

import numpy as np

from lacewing.program.ops import Buffer, GatedActivation, Linear, Norm
from tests.backends.cpu.single_ops import Case, floats, normal, one_batch, random_weight
from tests.backends.webgpu.lowering.test_attention import attention_case
from tests.backends.webgpu.lowering.test_experts import block
from tests.backends.webgpu.lowering.test_heads import heads_case, latent_case
from tests.backends.webgpu.single_ops import CODES, backend, error


def feed_forward() -> Case:
    x, normed, both = Buffer("x", 256).view(), Buffer("n", 256).view(), Buffer("f", 2 * 288)
    gate, up, down = both.view(0, 288), both.view(288, 288), Buffer("d", 256).view()
    ops = (
        Norm(x, "norm", normed, 1e-5),
        Linear(normed, ("gate", "up"), (gate, up)),
        GatedActivation(gate, up, gate),
        Linear(gate, ("down",), (down,)),
    )
    shapes = {"gate": (288, 256), "up": (288, 256), "down": (256, 288)}
    weights = {name: random_weight(name, "Q4_0", *shape, seed=3) for name, shape in shapes.items()}
    return Case(ops, normal(24, 256), down, weights | {"norm": floats("norm", np.ones(256))})


def projected() -> Case:
    """Attention whose bytes the next product takes."""
    case, out = attention_case(24, 4, 2, 32, 32), Buffer("projected", 64).view()
    weight = random_weight("w", "Q8_0", 64, 128)
    return replace(case, ops=(*case.ops, Linear(case.out, ("w",), (out,))), out=out, weights={"w": weight})


def main() -> None:
    """Few tokens and many of each."""
    least = int(sys.argv[1])
    with (
        patch("lacewing.backends.webgpu.device.device.subgroup_sizes", lambda vendor, device: (least, 64))
        if least
        else nullcontext()
    ):
        variant = backend(CODES).device.variant
    cases = {
        "feed forward": feed_forward(), "attention": projected(), "narrow": attention_case(24, 4, 2, 16, 8),
        "heads": replace(heads_case("norms"), x=normal(24, 128)), "latent": replace(latent_case(False), x=normal(24, 112)),
        "experts": block("Q8_0", "gated", False, False, 24),
    }  # fmt: skip
    batches = [([0] * 3, [0, 1, 2]), ([0], [3]), *one_batch(20, 4)]
    found: dict[str, float] = {name: error(case, batches, CODES) for name, case in cases.items()}
    print(json.dumps(found | {"lanes": variant.lanes if variant.subgroups else 0, "fixed": variant.fixed}))


if __name__ == "__main__":
    main()
