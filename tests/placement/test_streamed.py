"""When a mixture of experts is streamed, how many slots it gets, and what a model does that is."""

import re

import numpy as np
import pytest

import lacewing
from lacewing.errors import ModelFormatError, OptionError, OutOfMemoryError
from lacewing.options import LoadOptions, parse_bytes, spelled
from lacewing.placement.plan import MemoryRequirements, plan, plan_or_reason
from lacewing.weights.experts import LayerSlots, SlotCount
from lacewing.weights.experts.expected import expected
from lacewing.weights.machine import Machine
from tests.checkpoints import tiny

LAYERS = tuple(LayerSlots((f"blk.{layer}",), 16, 2, 110, 1600) for layer in range(10))
NEEDS = MemoryRequirements(17000, 3000, 500, 500, 16000, 2000, mixtures=LAYERS)
LEAST = 500 + 500 + 1000 + 2 * 1100 + 4 * 110


def planned(available, needs=NEEDS, **options):
    return plan(needs, LoadOptions(**options), Machine(10**6, available, "a test"))


def test_auto_streams_what_does_not_fit():
    assert planned(10**5).residency == "eager"
    found = planned(12500)
    assert (found.residency, found.slots) == ("streamed", SlotCount(6, 4, 6 * 1100 + 440))
    assert found.needed_bytes == 1000 + 1000 + 6 * 1100 + 440 <= 0.8 * 12500
    assert "streamed" in found.reasons[0]
    assert planned(10000, memory_bytes=10000).slots == found.slots  # a person said so much
    least = -(-LEAST * 10 // 8)
    assert planned(least).slots.layer == 2
    assert planned(least - 2).residency == "lazy" and planned(least - 2).slots is None
    assert planned(22000).residency == "streamed" and planned(22500).residency != "streamed"
    rows = {row.name: row.nbytes for row in found.rows}
    assert rows["trunk"] == 1000 and rows["slots"] == 6 * 1100 + 440
    assert rows["resident"] == 1000 + 10 * 6 * 100
    assert rows["streamed"] == expected(LAYERS, found.slots, 1.0).token_bytes["even"] == 1250  # of 2000, 6 of 16 in RAM


def test_streaming_that_was_asked_for():
    assert planned(10**6, residency="streamed").slots == SlotCount(16, 4, 16 * 1100 + 440)
    with pytest.raises(
        OutOfMemoryError, match=r"streaming needs 4.5 KiB at least.*a test gives 4.5 KiB.*make 4.6KiB of memory free"
    ):
        planned(LEAST - 1, residency="streamed")
    with pytest.raises(
        OutOfMemoryError, match=r"the memory option gives 1 B; choose a smaller context, or allow `memory='4.6KiB'`"
    ):
        planned(10**6, residency="streamed", memory_bytes=1)
    assert planned(LEAST, residency="streamed").slots == SlotCount(2, 4, 2 * 1100 + 440)
    with pytest.raises(OptionError, match="only mixtures of experts are streamed, as far as the CPU computes") as refused:
        planned(10**6, MemoryRequirements(17000, 17000, 500, 500), residency="streamed")
    assert spelled(str(refused.value)).endswith("choose --residency lazy or --residency eager")


@pytest.mark.parametrize(("residency", "least"), [("streamed", LEAST), ("eager", 18000), ("lazy", 1000), ("auto", 1000)])
def test_people_who_only_want_to_know_are_told_what_is_needed(residency, least):
    machine = Machine(10**6, 900, "a test")
    found = plan_or_reason(NEEDS, LoadOptions(residency=residency), machine)
    assert (found.residency, found.needed_bytes, found.rows[-2].nbytes) == ("none", least, least)
    with pytest.raises(OutOfMemoryError):
        planned(least - 1, residency=residency)
    assert planned(least, residency=residency).needed_bytes <= least


def test_the_number_that_a_refusal_tells_will_do(path):
    """As the command line takes it."""
    for residency in ("streamed", "eager", "lazy"):
        with pytest.raises(OutOfMemoryError) as refused:
            lacewing.load(path, backend="cpu", residency=residency, threads=2, context=64, memory=1)
        size = re.search(r"`memory='(.*?)'`", str(refused.value))[1]
        with lacewing.load(path, backend="cpu", residency=residency, threads=2, context=64, memory=size) as model:
            assert model.weights.residency == residency and model.plan.budget_bytes == parse_bytes(size)
            assert model.logits([1, 2, 3]).size
        with pytest.raises(OutOfMemoryError, match=f"memory='{size}'"):
            lacewing.load(path, backend="cpu", residency=residency, threads=2, context=64, memory=int(0.9 * parse_bytes(size)))


def test_another_residency_frees_the_slots():
    streamed = planned(12500)
    for residency, nbytes in (("lazy", 1000), ("eager", 18000)):
        found = streamed.instead(residency, "a test")
        assert (found.needed_bytes, found.slots, found.residency) == (nbytes, None, residency)
        assert not {"trunk", "slots"} & {row.name for row in found.rows}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny("qwen3moe", "gguf", tmp_path_factory.mktemp("streamed"), "Q8_0")


def test_residency_changes_while_a_model_runs(path):
    """To streamed and back, with the KV cache kept and the same bits."""
    with lacewing.load(path, backend="cpu", residency="lazy", threads=2, context=64) as model:
        expected = model.logits([1, 2, 3, 4, 5])
        for residency in ("streamed", "eager", "streamed", "lazy"):
            model.set_residency(residency)
            assert model.weights.residency == model.plan.residency == residency
            assert np.array_equal(model.logits([1, 2, 3, 4, 5]), expected)
            assert (model.plan.slots is not None) == (residency == "streamed") == (model.weights.experts is not None)


def test_greedy_tokens_are_equal(path):
    texts = []
    for options in ({"residency": "lazy"}, {"residency": "eager"}, {"residency": "streamed"}):
        with lacewing.load(path, backend="cpu", threads=2, context=128, **options) as model:
            texts.append(model.generate("Hello", max_tokens=60, temperature=0, ignore_eos=True))
    assert texts[0] == texts[1] == texts[2]


def test_dense_models_and_other_backends_are_refused(path, tiny_path):
    with pytest.raises(OptionError, match="only mixtures of experts"):
        lacewing.load(tiny_path, backend="cpu", residency="streamed")
    with pytest.raises(OptionError, match="only mixtures of experts"):
        lacewing.load(path, backend="reference", residency="streamed")


def test_a_file_that_shrinks_while_it_is_streamed(tmp_path):
    """The request fails, in words, and the process lives; the slots keep what they have."""
    path = tiny("qwen3moe", "gguf", tmp_path)
    with lacewing.load(path, backend="cpu", residency="streamed", threads=2, context=64) as model:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ModelFormatError):
            model.logits([1, 2, 3, 4, 5])


def test_an_interrupt_after_streamed_weights_have_gone(path, monkeypatch):
    """The step goes on with the slots of before, which are still there."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with lacewing.load(path, backend="cpu", residency="streamed", threads=2, context=64) as model:
        expected = model.logits([1, 2, 3, 4, 5])
        for residency in ("lazy", "eager"):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                todo = [interrupt, model.step.rebind]
                patch.setattr(model.step, "rebind", lambda todo=todo: todo.pop(0)())
                model.set_residency(residency)
            assert model.weights.residency == model.plan.residency == "streamed"
            assert np.array_equal(model.logits([1, 2, 3, 4, 5]), expected)
            assert np.array_equal(model.logits([7, 8, 9, 4, 5, 6, 2]), model.logits([7, 8, 9, 4, 5, 6, 2]))


def test_hits_count_layers_where_nothing_is_missing(path):
    with lacewing.load(path, backend="cpu", residency="streamed", threads=2, context=64) as model:
        for _ in range(20):
            model.engine.forget()
            model.logits([1, 2, 3])
        use = model.weights.experts.statistics
        assert use.misses <= 2 * 8 and use.hit_rate > 0.9


def test_memory_that_does_not_hold_both_goes_through_lazy(path, monkeypatch):
    seen = []
    with lacewing.load(path, backend="cpu", residency="streamed", threads=2, context=64) as model:
        expected = model.logits([1, 2, 3, 4, 5])
        both = model.memory_bytes + model.weights.nbytes
        monkeypatch.setattr("lacewing.weights.this_machine", lambda: Machine(2**40, both - model.memory_bytes, "a test"))
        prepare = model.weights.prepare
        monkeypatch.setattr(model.weights, "prepare", lambda wanted, *rest: (seen.append(wanted), prepare(wanted, *rest))[1])
        model.set_residency("eager")
        assert seen == ["lazy", "eager"] and np.array_equal(model.logits([1, 2, 3, 4, 5]), expected)
