"""Sessions on a GPU, which may be lost or full: the conversation is kept, and the CPU continues it if the person agrees."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wgpu

from lacewing.api import Model
from lacewing.chat.commands.table import run_line
from lacewing.chat.services import autosave, document, files
from lacewing.chat.services.opening import list_models
from lacewing.chat.session.events import Notice
from lacewing.errors import BackendError, Cancelled, OptionError, OutOfMemoryError
from lacewing.options import GPU, LoadOptions
from lacewing.weights import Machine
from tests.chat.conftest import say
from tests.checkpoints import tiny

pytestmark = pytest.mark.gpu


@pytest.fixture
def chat(chat_on_gpu):
    return chat_on_gpu


def device_of(chat):
    return chat.model.backend.device


def test_a_lost_gpu(chat):
    first = say(chat, "hello")
    assert first and chat.status().backend == "webgpu"
    asked, device, before = [], device_of(chat), [dict(message) for message in chat.messages]
    device.device.destroy()
    chat.ui.confirm = lambda question: asked.append(question) is not None
    with pytest.raises(BackendError, match="the GPU was lost"):
        say(chat, "and now?")
    assert "continue with" in asked[0] and "on the CPU?" in asked[0]
    assert chat.messages == before and chat.model.backend.name == "webgpu"  # nothing is lost, nothing is changed
    chat.ui.confirm = lambda question: True
    events = list(chat.say("and now?"))
    assert any(isinstance(event, Notice) and "on the GPU were closed" in event.text for event in events)
    assert chat.status().backend == "cpu" and chat.parked == [] and device.allocated == 0
    assert chat.messages[:2] == before and len(chat.messages) == 4 and chat.messages[3]["content"]
    assert "webgpu" in run_line(chat, "/model --backend webgpu").text  # opened anew
    assert device_of(chat) is not device and say(chat, "again")


def test_a_lost_gpu_while_an_answer_goes_on(chat):
    """/continue is a request like any other."""
    first = say(chat, "hello")
    device_of(chat).device.destroy()
    with pytest.raises(BackendError, match="the GPU was lost"):
        list(chat.continue_())
    assert chat.messages[-1]["content"] == first
    chat.ui.confirm = lambda question: True
    list(chat.continue_())
    assert chat.status().backend == "cpu" and len(chat.messages) == 2
    assert chat.messages[-1]["content"].startswith(first) and len(chat.messages[-1]["content"]) > len(first)


def test_what_a_driver_may_take_with_it_is_saved_before(chat, start, tmp_path, monkeypatch):
    """Before each answer on a GPU; whoever comes back is told, once; who leaves as they like leaves nothing."""
    monkeypatch.setenv("LACEWING_SESSIONS", str(tmp_path))
    chat.autosave = lambda: autosave.autosave(chat)
    list(chat.say("hello"))
    assert files.names() == [f"autosave-open-{os.getpid()}"] and autosave.recover() == []
    kept = [each["content"] for each in document.read(files.path_of(files.names()[0]))["messages"]]
    assert kept == ["hello", chat.messages[-1]["content"]]
    assert "/load autosave-2" in autosave.rescue(chat)  # it is not as good as saved by a person
    autosave.clean_up()
    (rescued,) = files.names()
    assert rescued.startswith("autosave-2")
    autosave.autosave(chat)  # saved meanwhile
    assert files.names() == [rescued]
    files.path_of(rescued).rename(files.path_of("autosave-open-999999999"))
    (found,) = autosave.recover()
    assert found.startswith("autosave-2") and found.endswith("-999999999") and autosave.recover() == []
    chat.replace([])
    run_line(chat, f"/load {found}")
    assert chat.messages[0]["content"] == "hello"
    other = start()
    other.autosave = lambda: pytest.fail("the CPU ends nothing")
    list(other.say("hello"))


ENDED = (
    "import os; from lacewing.backends.webgpu.step.step import WebGPUStep as step; "
    "step.greedy = step._choose = step._run = lambda *_: os.abort()"
)


def test_a_driver_that_ends_the_process(tiny_path, tmp_path):
    """What was said is told by the next chat, and can be gone on with."""
    variables = os.environ | {"LACEWING_SESSIONS": str(tmp_path), "LACEWING_WEBGPU_CHECKS": "1"}

    def chat_with(lines, before="pass"):
        words = ["lacewing", "chat", str(tiny_path), "--backend", "webgpu", "--max-tokens", "4", "--temperature", "0"]
        code = f"{before}; import sys; sys.argv = {words}; from lacewing.cli import main; main()"
        return subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, text=True, env=variables, timeout=100)

    assert chat_with("remember the milk\n", ENDED).returncode != 0
    (left,) = tmp_path.glob("*.json")
    assert left.name.startswith("autosave-open-")
    done = chat_with("")
    (kept,) = tmp_path.glob("*.json")
    assert done.returncode == 0 and f"/load {kept.stem} loads it" in done.stdout + done.stderr
    done = chat_with(f"/load {kept.stem}\n/retry\n")
    assert done.returncode == 0 and "1 message" in done.stderr, done.stdout + done.stderr  # without one there is nothing to retry
    (left,) = set(tmp_path.glob("*.json")) - {kept}
    assert left.name.startswith("pipe-") and len(json.loads(left.read_text())["messages"]) == 2


def test_a_full_gpu_keeps_the_old_model(start, paths, monkeypatch):
    monkeypatch.setenv("LACEWING_WEBGPU", "dot")
    monkeypatch.setenv("LACEWING_WEBGPU_CHECKS", "1")
    chat = start()
    first = say(chat, "hello")
    assert "webgpu" in run_line(chat, "/model --backend webgpu").text
    device = device_of(chat)
    held, create, left = device.allocated, device.device.create_buffer, [9]

    def failing(**options):
        left[0] -= 1
        if left[0] < 0:
            raise wgpu.GPUOutOfMemoryError("Not enough memory left")
        return create(**options)

    monkeypatch.setattr(device.device, "create_buffer", failing)
    with pytest.raises(OutOfMemoryError, match="the GPU"):
        run_line(chat, f"/model {paths['gemma']} --backend webgpu")
    assert device.allocated == held and chat.model.spec.architecture == "llama" and chat.messages[1]["content"] == first
    assert say(chat, "still there?")
    with pytest.raises(OptionError, match="no adapter 'nowhere'"):
        run_line(chat, "/model --adapter nowhere")
    monkeypatch.undo()
    chat.close()
    assert device.allocated == 0


def test_settings_tell_the_device(chat):
    rows = {row[0]: row[2] for row in run_line(chat, "/settings").data.rows}
    assert rows["/model"] == "webgpu"


def test_models_on_the_gpu_need_no_ram(chat, paths, monkeypatch):
    """/model and its table ask `place`, as loading does: the RAM of this machine does not matter, that of the GPU does."""
    monkeypatch.setattr("lacewing.weights.this_machine", lambda: Machine(2**30, 1000, "a small machine"))
    fits = {Path(row[1]).name: row[-1] for row in list_models(chat)}
    assert {fits[path.name] for path in (paths["llama"], paths["gemma"])} == {"fits (GPU)"}
    assert run_line(chat, f"/model {paths['gemma']}").text.startswith("now ")
    assert chat.model.backend.name == GPU and say(chat, "hello")
    with pytest.raises(OutOfMemoryError, match="a small machine"):
        run_line(chat, f"/model {paths['llama']} --gpu-layers 1")
    monkeypatch.setattr(type(chat.model.backend), "room_bytes", lambda backend: 1000)
    with monkeypatch.context() as patch:  # nothing is counted as leaving the GPU
        patch.setattr(Model, "device_bytes", 0)
        assert "does not fit: not even one layer" in {Path(row[1]).name: row[-1] for row in list_models(chat)}[paths["llama"].name]


def test_eager_on_a_gpu_says_where_the_weights_are(chat, monkeypatch):
    monkeypatch.setattr("lacewing.weights.store.read_weights", lambda *_: pytest.fail("the file is read"))
    for line in ("/eager", "/eager --force", "/lazy"):
        assert "the weights are on " in run_line(chat, line).text and "nothing was read" in run_line(chat, line).text
    assert chat.model.weights.anonymous_bytes == 0 and say(chat, "hello")


def test_verify_on_a_gpu(chat):
    """Residencies mean nothing there: only backends are compared."""
    rows = run_line(chat, "/verify").data.rows
    assert [row[0] for row in rows] == ["webgpu", "webgpu again", "cpu", "cuda", "reference"]
    verdicts = {row[0]: row[-1].partition(",")[0] for row in rows[1:]}
    assert verdicts.pop("cuda").partition(":")[0] in ("agrees", "not available")
    assert verdicts == {"webgpu again": "bitwise equal", "cpu": "agrees", "reference": "agrees"}


def test_a_model_that_the_cpu_shares(chat, paths):
    """The conversation goes over and back; the plan is told, and shown by /memory; a lost GPU is a question as ever."""
    first = say(chat, "hello")
    text = run_line(chat, f"/model {paths['llama']} --gpu-layers 1").text
    assert "on the GPU is layer 1 of 2 and the output" in text and text.count("asked for") == 1
    assert run_line(chat, "/memory").data.rows[0][0] == "on the GPU"
    assert "is the current model" in run_line(chat, f"/model {paths['llama']} --gpu-layers 1").text
    assert chat.messages[1]["content"] == first and say(chat, "and now?")
    run_line(chat, "/lazy")
    run_line(chat, "/eager")
    assert say(chat, "still?")
    with pytest.raises(OptionError, match="`gpu_layers` is for a GPU"):
        run_line(chat, f"/model {paths['llama']} --backend cpu --gpu-layers 1")
    with pytest.raises(OptionError, match="number of layers"):
        run_line(chat, "/model --gpu-layers few")
    device, before = chat.model.backend.backends[0].device, [dict(message) for message in chat.messages]
    device.device.destroy()
    chat.ui.confirm = lambda question: True
    list(chat.say("again"))
    assert chat.status().backend == "cpu" and chat.messages[: len(before)] == before and device.allocated == 0


@pytest.mark.parametrize("end", [OutOfMemoryError, Cancelled, BackendError])
def test_a_shared_model_that_does_not_come(chat, paths, monkeypatch, end):
    """Wherever its making ends, the current one goes on, the conversation is whole, and the GPU has what it had."""
    first, device, before = say(chat, "hello"), device_of(chat), chat.model
    held, make, left = device.allocated, device.buffer, [0]

    def ending(size, label, usage=None):
        left[0] -= 1
        if left[0] < 0:
            raise end("it ends here")
        return make(size, label, usage)

    for count in (0, 5, 20):
        left[0] = count
        with monkeypatch.context() as patch:
            patch.setattr(device, "buffer", ending)
            with pytest.raises(end, match="it ends here"):
                run_line(chat, f"/model {paths['gemma']} --gpu-layers 2")
        assert chat.model is before and chat.parked == [] and device.allocated == held
    assert chat.messages[1]["content"] == first and say(chat, "still there?")
    assert chat.status().backend == "webgpu"
    run_line(chat, f"/model {paths['gemma']} --gpu-layers 2")
    assert " and " in chat.model.backend.facts().name  # both devices
    run_line(chat, "/model -")
    assert chat.model is before and say(chat, "and now?") and len(chat.messages) == 6
    for loaded in chat.parked:
        loaded.model.close()
    chat.parked.clear()
    assert held <= device.allocated < 1.05 * held  # with the pages of what was said since


def test_a_gpu_without_room_for_two(chat, paths, monkeypatch):
    """The current model leaves the GPU for the next one, and is back when the next one does not come."""
    first, device = say(chat, "hello"), device_of(chat)
    held, before = device.allocated, chat.model
    run_line(chat, f"/model {paths['gemma']}")
    assert [each.model for each in chat.parked] == [before] and device.allocated > held  # room enough for both
    run_line(chat, "/model -")
    monkeypatch.setattr(type(chat.model.backend), "room_bytes", lambda backend: max(0, held - device.allocated))
    chat.ui.cancelled = lambda: not before.on_device  # as soon as the current one has left
    with pytest.raises(Cancelled):
        run_line(chat, f"/model {paths['qwen']}")
    chat.ui.cancelled = lambda: False
    assert chat.model is before and chat.parked == []  # the parked one had to go
    assert 0 < device.allocated <= held and chat.messages[1]["content"] == first  # pages come as they are needed
    assert say(chat, "still there?")
    text = run_line(chat, f"/model {paths['qwen']}").text
    assert "could not be parked" in text and chat.parked == [] and not before.on_device
    assert chat.model.backend.name == "webgpu" and device.allocated < 2 * held
    assert say(chat, "and you?") and len(chat.messages) == 6


def test_a_gpu_that_does_not_take_the_current_model_back(chat, paths, monkeypatch):
    first, device, before = say(chat, "hello"), device_of(chat), chat.model
    held = device.allocated

    def full(model, progress=None):
        raise OutOfMemoryError("others have filled the GPU")

    monkeypatch.setattr(type(chat.model.backend), "room_bytes", lambda backend: max(0, held - device.allocated))
    monkeypatch.setattr(type(chat.model), "return_to_device", full)
    chat.ui.cancelled = lambda: not before.on_device
    with pytest.raises(Cancelled):
        run_line(chat, f"/model {paths['qwen']}")
    chat.ui.cancelled = lambda: False
    assert chat.status().backend == "cpu" and device.allocated == 0 and chat.messages[1]["content"] == first
    assert "others have filled the GPU" in chat.notices[-1]
    assert say(chat, "still there?") and run_line(chat, f"/model {paths['gemma']} --backend cpu").text.startswith("now ")


def test_experts_that_the_cpu_shares(chat, tmp_path, monkeypatch):
    """A mixture of which the GPU holds some experts: `/experts` tells, and who watches does not keep them from being swapped in."""
    monkeypatch.setattr("lacewing.placement.requirements.CHUNK", 16)  # buffers of long runs would take more than the experts
    first, path = say(chat, "hello"), tiny("qwen3moe", "gguf", tmp_path)
    from lacewing.backends import init_backend
    from lacewing.offload.plan import OffloadLevel, OffloadPlanner
    from lacewing.placement.info import ModelInfo
    from lacewing.placement.requirements import target_on

    opened = ModelInfo(path, LoadOptions(context=256), warm=False)
    room = OffloadPlanner(opened.spec.program, target_on(opened, init_backend("webgpu"))).load(OffloadLevel(0, 0, 2, 3)).nbytes
    text = run_line(chat, f"/model {path} --gpu-memory {room} --context 256").text
    assert "everything but 5 of 8 experts of all layers" in text and chat.messages[1]["content"] == first
    device = chat.model.backend.backends[0].device
    run_line(chat, "/experts")
    places = [layer.places.copy() for layer in chat.model.step._rebalancer.manager.tier.layers]
    for _ in range(3):
        say(chat, "and now?")
    moved = [layer.places for layer in chat.model.step._rebalancer.manager.tier.layers]
    assert not all(np.array_equal(before, after) for before, after in zip(places, moved, strict=True))
    assert "on the GPU: 3 of 8 experts of each of 2 layers, " in run_line(chat, "/experts").text
    run_line(chat, "/lazy")
    assert say(chat, "still?") and len(chat.messages) == 10
    before = [dict(message) for message in chat.messages]
    device.device.destroy()
    chat.ui.confirm = lambda question: True
    list(chat.say("again"))
    assert chat.status().backend == "cpu" and chat.messages[: len(before)] == before
