"""When a mixture of experts is streamed, how many slots it gets, and what a model does that is."""

import numpy as np
import pytest

import lacewing
from lacewing.errors import ModelFormatError, OptionError, OutOfMemoryError
from lacewing.options import LoadOptions
from lacewing.placement.plan import MemoryRequirements, plan
from lacewing.weights.experts import LayerSlots, SlotCount
from lacewing.weights.machine import Machine
from tests.checkpoints import tiny

LAYERS = tuple(LayerSlots((f"blk.{layer}",), 16, 2, 110, 1600) for layer in range(10))
NEEDS = MemoryRequirements(17000, 3000, 500, 500, 16000, 2000, mixtures=LAYERS)
LEAST = 500 + 500 + 1000 + 2 * 1100 + 4 * 110


def planned(available, needs=NEEDS, **options):
    return plan(needs, LoadOptions(**options), Machine(10**6, available, "a test"))


def test_auto_streams_what_does_not_fit():
    assert planned(10**5).residency == "eager"
    found = planned(10000)
    assert (found.residency, found.slots) == ("streamed", SlotCount(6, 4, 6 * 1100 + 440))
    assert found.needed_bytes == 1000 + 1000 + 6 * 1100 + 440 <= 10000
    assert "streamed" in found.reasons[0]
    assert planned(LEAST).slots.layer == 2
    assert planned(LEAST - 1).residency == "lazy" and planned(LEAST - 1).slots is None
    rows = {row.name: row.nbytes for row in found.rows}
    assert rows["trunk"] == 1000 and rows["slots"] == 6 * 1100 + 440
    assert rows["resident"] == 1000 + 10 * 6 * 100


def test_streaming_that_was_asked_for():
    assert planned(10**6, residency="streamed").slots == SlotCount(16, 4, 16 * 1100 + 440)
    with pytest.raises(OutOfMemoryError, match=r"streaming needs 4.5 KiB at least.*a test gives 4.5 KiB"):
        planned(LEAST - 1, residency="streamed")
    with pytest.raises(OptionError, match="only mixtures of experts that the CPU runs are streamed"):
        planned(10**6, MemoryRequirements(17000, 17000, 500, 500), residency="streamed")


def test_another_residency_frees_the_slots():
    streamed = planned(10000)
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
