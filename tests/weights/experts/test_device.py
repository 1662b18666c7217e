"""Which experts have slots on a device, and when another one gets one; and what is brought there from slots in RAM."""

import numpy as np
import pytest

import lacewing
from lacewing.weights.experts.device import DeviceLayer, DeviceTier, first_resident
from lacewing.weights.experts.policy import HALF_LIFE
from tests.checkpoints import tiny
from tests.models.running import run
from tests.weights.experts.packs import packed
from tests.weights.experts.streaming import opened

EXPERTS, ACTIVE, NBYTES = 16, 2, 10


def use(tier, *ids):
    """A run of one token."""
    tier.begin_run()
    chosen = np.array([ids], np.int32)
    for layer in tier.layers:
        layer.count(chosen, layer.places[chosen])


def exchange(tier, most=2**40):
    """How many came."""
    found = tier.wanted([NBYTES] * len(tier.layers), most)
    for each in found:
        tier.layers[each.layer].leave(each.place)
        tier.layers[each.layer].arrive(each.expert, each.place, NBYTES)
    return len(found)


def test_what_is_used_often_stays_and_what_is_used_no_more_leaves():
    tier = DeviceTier([DeviceLayer(EXPERTS, 4, ACTIVE)])
    (layer,) = tier.layers
    for _ in range(20):
        use(tier, 9, 2)
    assert exchange(tier) == 1 and layer.resident[[9, 2]].all() and layer.resident.sum() == 4
    for _ in range(2 * HALF_LIFE):
        use(tier, 5, 6)
        exchange(tier)
    assert np.flatnonzero(layer.resident).size == 4 and layer.resident[[5, 6]].all()
    assert sorted(layer.places[layer.resident]) == [0, 1, 2, 3] and (layer.places[~layer.resident] == -1).all()


def test_equals_do_not_take_turns():
    """Two experts for one slot, each used every other run; with an exchange before each of 400 runs."""
    tier, moved = DeviceTier([DeviceLayer(EXPERTS, 1, 1)]), 0
    for number in range(400):
        moved += exchange(tier)
        use(tier, (7, 8)[number % 2])
    assert moved == 1  # in place of the first, which is never used
    random, tier, moved = np.random.default_rng(4), DeviceTier([DeviceLayer(EXPERTS, 8, ACTIVE)]), 0
    for number in range(2000):
        use(tier, *random.choice(EXPERTS, ACTIVE, replace=False))
        if number % 8 == 0:
            moved += exchange(tier)
    assert moved < 2000 * ACTIVE / 10  # of 4000 choices, all alike


def test_so_many_bytes_the_best_first():
    tier = DeviceTier([DeviceLayer(EXPERTS, 2, ACTIVE) for _ in range(2)])
    for count, chosen in ((9, (5, 6)), (3, (7, 8))):
        for _ in range(count):
            use(tier, *chosen)
    found = tier.wanted([NBYTES] * 2, 3 * NBYTES + 1)
    assert [(each.layer, each.expert) for each in found] == [(0, 5), (0, 6), (1, 5)]
    assert len(tier.wanted([NBYTES] * 2, NBYTES - 1)) == 1 and exchange(tier) == 4  # an expert that is larger than that comes alone


@pytest.fixture
def streamed(tmp_path):
    step, store = opened(tiny("qwen3moe", "gguf", tmp_path, "Q8_0"), 4)
    yield step, store
    step.close()
    store.close()


def test_streamed_experts_come_from_ram_alone(streamed):
    """A tier above streamed layers: the uses that count are theirs, and nobody waits for the disk."""
    step, store = streamed
    layers = store.experts.layers
    tier = DeviceTier([DeviceLayer(layer.experts, 2, 2) for layer in layers])
    tier.bind(layers)
    run(step, [1, 2, 3, 4, 5])
    for below in layers:
        below.usage.look(int(below.clock[0]))
        below.usage.frequency[:] = np.arange(below.experts)  # the last ones are used most, whether they are there or not
    wanted = tier.wanted([NBYTES] * len(layers), 2**40)
    assert wanted and all(layers[each.layer].in_ram[each.expert] for each in wanted)
    assert any(not below.in_ram[below.experts - 2 :].all() for below in layers)  # some were left out
    assert exchange(tier) == len(wanted) == store.experts.statistics.uploaded
    assert store.experts.statistics.uploaded_bytes == NBYTES * len(wanted)
    assert all(np.array_equal(below.elsewhere, layer.resident) for layer, below in zip(tier.layers, layers, strict=True))


def test_slots_of_experts_that_are_elsewhere_are_the_first_to_go(streamed):
    """However much they are used there."""
    step, store = streamed
    (layer, *_) = store.experts.layers
    run(step, [1, 2, 3, 4, 5, 6, 7])
    there = np.flatnonzero(layer.in_ram)
    assert len(there) == 4
    layer.elsewhere[there[1]] = True
    layer.count_elsewhere(np.where(np.arange(layer.experts) == there[1], 1000, 0))
    assert store.experts.statistics.elsewhere == 1
    missing = int(np.flatnonzero(~layer.in_ram & ~layer.elsewhere)[0])
    for few in (True, False):
        for _ in layer.batches(np.array([missing]), few, lambda: None):
            assert layer.addresses[next(iter(layer.addresses))][missing]
        assert not layer.in_ram[there[1]] and layer.in_ram[[missing, *np.delete(there, 1)]].all()
        layer.elsewhere[:] = False
        layer.elsewhere[missing], there[1], missing = True, missing, there[1]


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_0", "F32"])
@pytest.mark.parametrize("pack", [False, True])
def test_rows_in_slots_are_those_of_the_file(quant, pack, tmp_path):
    """Also of a pack, whose rows are in the order of the kernels."""
    path = tiny("qwen3moe", "gguf", tmp_path, quant)
    step, store = opened(path, 4, packs=[packed(path)] if pack else [])
    run(step, [1, 2, 3, 4, 5])
    seen = 0
    for layer in store.experts.layers:
        for expert in np.flatnonzero(layer.in_ram).tolist():
            for name, rows in layer.rows(expert).items():
                whole = store[name].data.reshape(store[name].shape[0], -1)
                assert np.array_equal(rows, whole[expert])
                seen += 1
    assert seen >= 2 * 4 * 2
    step.close()
    store.close()


def test_counts_go_on_when_the_residency_changes(streamed):
    _, store = streamed
    (below, *_) = store.experts.layers
    tier = DeviceTier([DeviceLayer(below.experts, 2, 2)])
    for _ in range(5):
        use(tier, 3, 4)
    tier.bind([below])
    assert below.usage.frequency[[3, 4]].min() > 4 and tier.streamed is below
    use(tier, 0, 6)  # 0 is held, 6 is for the CPU to count
    assert below.usage.counts[0, 0] == 1 and below.usage.counts[6, 0] == 0
    tier.bind([None])
    use(tier, 0, 6)
    assert tier.streamed is None and tier.layers[0].usage.frequency[3] > 4 and tier.layers[0].usage.counts[6, 0] == 1


def test_uses_are_not_forgotten_by_a_change_of_residency(streamed):
    """Streamed experts count runs of their own: those of before are not time that has passed since."""
    _, store = streamed
    (below, *_) = store.experts.layers
    tier = DeviceTier([DeviceLayer(below.experts, 2, 2)])
    for _ in range(300):
        use(tier, 3, 4)
    tier.bind([below])
    tier.bind([None])
    before = float(tier.layers[0].usage.frequency[3])
    assert not below.elsewhere.any()
    use(tier, 3, 4)
    tier.wanted([NBYTES], NBYTES)
    assert tier.layers[0].usage.frequency[3] > 0.95 * before > 50


def test_the_first_ones_are_those_of_the_history(tmp_path):
    path = tiny("qwen3moe", "gguf", tmp_path, "Q8_0")
    assert first_resident(None, 3) == [0, 1, 2]
    for expected in (0, 1):
        step, store = opened(path, 8, history=tmp_path / "history")
        (layer, *_) = store.experts.layers
        if expected:
            assert first_resident(layer, 3) == np.argsort(-layer.usage.frequency, kind="stable")[:3].tolist()
            warm = store.experts.warm_start
            before = warm.planned
            layer.elsewhere[first_resident(layer, 3)] = True
            assert warm.planned == before - 3  # which need no slots
            layer.elsewhere[:] = False
        else:
            assert first_resident(layer, 3) == [0, 1, 2]
        for position in range(16):
            run(step, [position], position)
        step.close()
        store.close()


def test_a_streamed_model_without_a_gpu_tells_of_none(tmp_path):
    with lacewing.load(tiny("qwen3moe", "gguf", tmp_path), backend="cpu", residency="streamed", threads=2, context=64) as model:
        model.logits([1, 2, 3])
        assert "GPU" not in str(model.weights.experts) and model.weights.experts.statistics.elsewhere == 0
