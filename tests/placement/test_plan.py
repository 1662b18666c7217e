"""The memory plan: pure arithmetic, its reasons, and what it refuses."""

from __future__ import annotations

import pytest

from lacewing.errors import OutOfMemoryError
from lacewing.options import LoadOptions
from lacewing.placement.plan import MemoryPlan, MemoryRequirements, plan, plan_or_reason
from lacewing.weights import Machine

GIB = 2**30
ROOMY = Machine(64 * GIB, 50 * GIB, "the free memory")


def decide(weights: int = 4 * GIB, kv: int = GIB, buffers: int = GIB, machine: Machine = ROOMY, active: int | None = None,
           **options: object) -> MemoryPlan:  # fmt: skip
    needs = MemoryRequirements(weights, weights if active is None else active, kv, buffers)
    return plan(needs, LoadOptions(**options), machine)  # type: ignore[arg-type]


def rows(decision: MemoryPlan) -> dict[str, int]:
    return {row.name: row.nbytes for row in decision.rows}


def test_eager_where_there_is_room() -> None:
    decision = decide()
    assert decision.residency == "eager" and decision.needed_bytes == 6 * GIB and decision.budget_bytes == 50 * GIB
    assert rows(decision) == {"weights": 4 * GIB, "active weights": 4 * GIB, "resident": 4 * GIB, "streamed": 0,
                              "KV cache": GIB, "buffers": GIB, "needed": 6 * GIB, "budget": 50 * GIB}  # fmt: skip
    assert "80% of the free memory is 40.0 GiB" in decision.reasons[0]


def test_copies_are_memory_of_our_own() -> None:
    decision = plan(MemoryRequirements(4 * GIB, GIB, GIB, GIB, copied_bytes=3 * GIB), LoadOptions(residency="lazy"), ROOMY)
    assert decision.needed_bytes == 5 * GIB and rows(decision)["copies"] == 3 * GIB
    with pytest.raises(OutOfMemoryError, match=r"buffers \(4.0 GiB\) need 5.0 GiB"):
        plan(MemoryRequirements(4 * GIB, GIB, GIB, GIB, copied_bytes=3 * GIB), LoadOptions(memory_bytes=4 * GIB), ROOMY)


def test_lazy_where_there_is_not() -> None:
    decision = decide(weights=45 * GIB, active=40 * GIB)
    assert decision.residency == "lazy" and decision.needed_bytes == 2 * GIB and len(decision.reasons) == 1
    assert "would take 47.0 GiB" in decision.reasons[0]
    slow = decide(weights=80 * GIB)
    assert slow.residency == "lazy" and "the disk sets the speed" in slow.reasons[1]


def test_a_mixture_of_experts_stays_lazy_from_half_the_budget_on() -> None:
    small, large = decide(weights=24 * GIB, active=3 * GIB), decide(weights=26 * GIB, active=3 * GIB)
    assert (small.residency, large.residency) == ("eager", "lazy")
    assert "of 26.0 GiB a token reads 3.0 GiB" in large.reasons[0]
    assert decide(weights=26 * GIB, active=3 * GIB, residency="eager").residency == "eager"
    assert decide(weights=26 * GIB, active=20 * GIB).residency == "eager"  # dense: every token reads nearly all


def test_the_memory_option_is_the_budget() -> None:
    assert decide(memory_bytes=6 * GIB).residency == "eager"  # what a person allows may be filled to the brim
    lazy = decide(memory_bytes=6 * GIB - 1)
    assert lazy.residency == "lazy" and lazy.budget_bytes == 6 * GIB - 1 and "the memory option" in lazy.reasons[0]
    assert decide(memory_bytes=2 * GIB).residency == "lazy"
    with pytest.raises(OutOfMemoryError, match=r"need 2\.0 GiB, but the memory option gives 1\.0 GiB; choose a smaller context"):
        decide(memory_bytes=GIB)


def test_the_machine_bounds_the_option() -> None:
    small = Machine(8 * GIB, 3 * GIB, "the cgroup memory limit")
    decision = decide(machine=small, memory_bytes=20 * GIB)
    assert decision.budget_bytes == 3 * GIB and decision.residency == "lazy" and "cgroup" in decision.reasons[0]
    with pytest.raises(OutOfMemoryError, match=r"cgroup memory limit gives 3\.0 GiB"):
        decide(machine=small, kv=2 * GIB, buffers=2 * GIB)


def test_what_is_asked_for() -> None:
    assert decide(weights=45 * GIB, residency="eager").residency == "eager"  # above the automatic share, below the budget
    assert decide(residency="lazy").residency == "lazy"
    with pytest.raises(OutOfMemoryError, match=r"eager weights need 62\.0 GiB in all, .* choose `residency='lazy'`"):
        decide(weights=60 * GIB, residency="eager")
    with pytest.raises(OutOfMemoryError):
        decide(kv=60 * GIB, residency="lazy")


def test_no_weights_at_all() -> None:
    assert decide(weights=0, kv=0, buffers=0, machine=Machine(0, 0, "the free memory")).residency == "eager"


def test_it_never_plans_more_than_the_budget() -> None:
    for weights in range(0, 12, 2):
        for fixed in range(0, 12, 2):
            for budget in range(1, 12, 2):
                for residency in ("auto", "lazy", "eager"):
                    try:
                        decision = decide(weights * GIB, fixed * GIB, 0, memory_bytes=budget * GIB, residency=residency)
                    except OutOfMemoryError:
                        assert fixed > budget or (residency == "eager" and weights + fixed > budget)
                    else:
                        assert decision.needed_bytes <= budget * GIB
                        assert residency in ("auto", decision.residency)


def mixture(weights: int, available: int) -> MemoryPlan:
    """A tenth of the weights is read by every token; of the experts, nine tenths, a token reads a ninth."""
    needs = MemoryRequirements(weights, weights // 5, GIB, GIB, weights * 9 // 10, weights // 10)
    return plan(needs, LoadOptions(), Machine(available, available, "the free memory"))


def test_what_a_mixture_reads_from_the_disk() -> None:
    decision = mixture(100 * GIB, 57 * GIB)  # room for 55: what all tokens read, 10, and half of the experts
    assert decision.residency == "lazy"
    assert rows(decision) == {"weights": 100 * GIB, "experts": 90 * GIB, "active weights": 20 * GIB, "active experts": 10 * GIB,
                              "resident": 55 * GIB, "streamed": 5 * GIB, "KV cache": GIB, "buffers": GIB,
                              "needed": 2 * GIB, "budget": 57 * GIB}  # fmt: skip
    assert {row.name for row in decision.rows if row.decides == "speed"} == {"active weights", "streamed"}
    assert {row.name for row in decision.rows if row.decides == "memory"} == {"weights", "KV cache", "needed"}
    assert rows(mixture(100 * GIB, 102 * GIB))["streamed"] == 0
    assert rows(mixture(100 * GIB, 12 * GIB))["streamed"] == 10 * GIB  # no expert stays
    assert rows(mixture(100 * GIB, 8 * GIB))["streamed"] == 14 * GIB  # nor all of what every token reads
    assert rows(mixture(10 * GIB, 102 * GIB))["resident"] == 10 * GIB


def test_a_plan_that_cannot_be_is_described() -> None:
    needs = MemoryRequirements(4 * GIB, 4 * GIB, 9 * GIB, GIB)
    decision = plan_or_reason(needs, LoadOptions(), Machine(8 * GIB, 6 * GIB, "the free memory"))
    assert decision.residency == "none" and "does not fit" in decision.reasons[0] and "need 10.0 GiB" in decision.reasons[0]
    assert (rows(decision)["resident"], rows(decision)["streamed"], rows(decision)["needed"]) == (0, 4 * GIB, 10 * GIB)
    eager = plan_or_reason(needs, LoadOptions(residency="eager"), Machine(8 * GIB, 11 * GIB, "the free memory"))
    assert (eager.residency, eager.needed_bytes) == ("none", 14 * GIB)
    assert plan_or_reason(needs, LoadOptions(), ROOMY) == plan(needs, LoadOptions(), ROOMY)


def test_what_a_dense_model_reads_from_the_disk() -> None:
    assert rows(decide(weights=80 * GIB))["streamed"] == 32 * GIB and rows(decide(weights=80 * GIB))["resident"] == 48 * GIB
    assert rows(decide(weights=48 * GIB, residency="lazy"))["streamed"] == 0
    assert "streamed" not in rows(decide().instead("lazy", "asked for"))
