"""Models come when they are asked for, and what goes wrong with one is told and tried again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from lacewing.errors import ModelFormatError, OptionError
from lacewing.options import LoadOptions, Sampling
from lacewing.server.errors import DrainingError, ModelLoadError, UnknownModelError
from lacewing.server.models import loading
from lacewing.server.models.names import Catalogue
from lacewing.server.models.registry import Registry
from lacewing.server.options import ServerOptions
from tests.checkpoints import tiny


class FakeWorker:
    """Runs nothing."""

    def __init__(self, model, loop):
        self.model, self.loop, self.fault, self.closed = model, loop, None, False
        self.template = None

    def use_template(self, template):
        self.template = template

    def close(self):
        self.closed = True


@pytest.fixture
def paths(tmp_path):
    first = tiny("llama", "gguf", tmp_path)
    second = first.with_name("second.gguf")
    second.write_bytes(first.read_bytes())
    return first, second


@contextlib.asynccontextmanager
async def registry_of(*paths, load=None, **options):
    load = load or LoadOptions(backend="reference", context=256, sequences=2)
    options = ServerOptions(models=tuple(map(str, paths)), load=load, **options)
    registry = Registry(Catalogue(options), options, FakeWorker)
    try:
        yield registry
    finally:
        await registry.close()


def test_streaming_is_for_the_mixtures_of_a_server(tmp_path, caplog):
    """A dense model beside them is loaded as it would be anyway, which the log says; asked for by name it is refused."""
    dense, mixture = tiny("llama", "gguf", tmp_path), tiny("qwen3moe", "gguf", tmp_path)

    async def run():
        load = LoadOptions(backend="cpu", threads=1, context=256, sequences=2, residency="streamed")
        async with registry_of(dense, mixture, load=load) as registry:
            for path, residency in ((dense, "eager"), (mixture, "streamed")):
                async with registry.use(path.stem) as served:
                    assert served.model.weights.residency == residency
            assert await registry.load(dense.stem, {"residency": "lazy"}) == ["residency"]
            assert await registry.load(dense.stem, {"residency": None}) == ["residency"]
            with pytest.raises(OptionError, match="only mixtures of experts"):
                await registry.load(dense.stem, {"residency": "streamed"})
            (entry,) = (each for each in registry.names() if each.name == dense.stem)
            assert entry.served.model.weights.residency == "eager" and entry.setup.residency is None

    asyncio.run(run())
    assert [record.notice for record in caplog.records if "nothing of it is streamed" in getattr(record, "notice", "")]


def test_a_model_is_loaded_when_it_is_asked_for(tiny_path):
    async def run():
        async with registry_of(tiny_path) as registry:
            (entry,) = registry.names()
            assert entry.status == "unloaded" and registry.health.status == "ok" and not registry.served
            stages = []
            loop_thread = threading.get_ident()
            async with registry.use(None, lambda *stage: stages.append((*stage, threading.get_ident()))) as served:
                assert served.name == tiny_path.stem and served.created > 1e9 and served.worker.loop is asyncio.get_running_loop()
                assert registry.names()[0].status == "loaded" and registry.health.status == "ok"
            assert stages and {stage[3] for stage in stages} == {loop_thread}
            async with registry.use(tiny_path.stem) as again:
                assert again is served
            with pytest.raises(UnknownModelError):
                async with registry.use("other"):
                    pass
        assert served.worker.closed and not served.model.on_device

    asyncio.run(run())


def test_the_log_tells_what_people_should_know_of_a_model(tiny_path, monkeypatch, caplog):
    """Such as that it has no chat template and is probably a base model."""
    monkeypatch.setattr("lacewing.placement.info.ModelInfo.chat_notices", ("it is a base model",))

    async def run():
        async with registry_of(tiny_path) as registry, registry.use(None):
            pass

    asyncio.run(run())
    assert ("WARNING", "it is a base model") in {(each.levelname, getattr(each, "notice", "")) for each in caplog.records}


def test_those_who_come_meanwhile_wait_for_one_load(tiny_path, monkeypatch):
    loads, release = [], threading.Event()
    load = loading.load
    monkeypatch.setattr(loading, "load", lambda *given, **more: (loads.append(given), release.wait(10), load(*given, **more))[2])

    async def run():
        async with registry_of(tiny_path) as registry:

            async def use():
                async with registry.use(None) as served:
                    return served

            waiting = [asyncio.create_task(use()) for _ in range(5)]
            while not loads:
                await asyncio.sleep(0.01)
            assert registry.health.status == "loading" and registry.names()[0].status == "loading" and registry.loading
            waiting[0].cancel()  # it leaves, the others still get the model
            await asyncio.sleep(0.05)
            release.set()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert isinstance(results[0], asyncio.CancelledError) and len(set(results[1:])) == 1
            assert len(loads) == 1

    asyncio.run(run())


def test_a_failed_load_is_told_and_tried_again(tiny_path, monkeypatch):
    async def run():
        async with registry_of(tiny_path) as registry:
            with monkeypatch.context() as patch:
                patch.setattr(loading, "load", lambda *_: (_ for _ in ()).throw(ModelFormatError("file", "is damaged")))
                for _ in range(2):
                    with pytest.raises(ModelLoadError, match="could not be loaded: file: is damaged") as raised:
                        async with registry.use(None):
                            pass
                    assert raised.value.status == 503 and isinstance(raised.value.__cause__, ModelFormatError)
                assert registry.health.status == "failed" and "is damaged" in registry.health.message
                assert registry.names()[0].status == "failed"
                patch.setattr(loading, "load", lambda *_: (_ for _ in ()).throw(RuntimeError()))  # drivers raise what they like
                with pytest.raises(ModelLoadError, match="RuntimeError"):
                    async with registry.use(None):
                        pass
            async with registry.use(None) as served:
                assert served.model.on_device
            assert registry.health.status == "ok" and not registry.names()[0].problem

    asyncio.run(run())


def test_a_template_that_cannot_be_had_any_more_leaves_nothing_in_memory(tiny_path, tmp_path, monkeypatch):
    file = tmp_path / "own.jinja"
    file.write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    models, load = [], loading.load
    monkeypatch.setattr(loading, "load", lambda *given, **more: models.append(load(*given, **more)) or models[-1])

    async def run():
        async with registry_of(tiny_path, allow_paths=True) as registry:
            await registry.load(None, {"template": str(file)})
            await registry.unload(None)
            file.unlink()
            with pytest.raises(ModelLoadError, match=r"own\.jinja"):
                async with registry.use(None):
                    pass
            assert len(models) == 2 and not any(model.on_device for model in models)

    asyncio.run(run())


def test_a_path_is_no_template_unless_paths_are_allowed(tiny_path, tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text("{% for message in messages %}{{ message.content }}{% endfor %}")

    async def run():
        async with registry_of(tiny_path) as registry, registry.use(None):
            async with registry._mover.turn:  # the model leaves between the two parts of the load
                asked = asyncio.create_task(registry.load(None, {"template": str(file)}))
                await asyncio.sleep(0.05)
                await registry._mover.close(next(iter(registry._slots.values())))
            await asyncio.gather(asked, return_exceptions=True)
            async with registry.use(None) as served:
                assert served.worker.template is None
            assert registry.entry(None).setup.template == "auto"

    asyncio.run(run())


def test_a_fault_of_a_driver_does_not_end_the_watch(paths, monkeypatch):
    unload = loading.unload
    faults = [RuntimeError("a driver")]

    def failing(served):
        unload(served)
        if faults:
            raise faults.pop()

    monkeypatch.setattr(loading, "unload", failing)

    async def run():
        async with registry_of(*paths, idle_unload=0.1) as registry:
            for name in ("second", None):
                async with registry.use(name):
                    pass
            async with asyncio.timeout(10):
                while registry.served:
                    await asyncio.sleep(0.05)
        assert not faults

    asyncio.run(run())


def test_several_models_beside_each_other(paths):
    async def run():
        async with registry_of(*paths) as registry, registry.use("second") as second, registry.use(None) as first:
            assert first is not second and {each.status for each in registry.names()} == {"loaded"}
            assert len(registry.served) == 2

    asyncio.run(run())


def test_nothing_new_while_it_ends(tiny_path):
    async def run():
        async with registry_of(tiny_path) as registry, registry.use(None):
            registry.draining = True
            assert registry.health.status == "draining"
            with pytest.raises(DrainingError):
                async with registry.use(None):
                    pass

    asyncio.run(run())


def test_closing_cancels_what_loads(tiny_path, monkeypatch):
    begun = threading.Event()

    def slow(info, progress, cancelled, spare=0):
        begun.set()
        while not cancelled():
            time.sleep(0.01)
        from lacewing.errors import Cancelled

        raise Cancelled("loading was cancelled")

    monkeypatch.setattr(loading, "load", slow)

    async def run():
        async with registry_of(tiny_path) as registry:
            first = asyncio.create_task(registry.preload())
            waiting = asyncio.create_task(registry.load(None, {}))
            await loading.in_thread(begun.wait)
        assert await first is None  # which is no fault
        with pytest.raises(DrainingError):
            await waiting

    asyncio.run(run())


def test_sequences_have_more_than_one_context_where_memory_is_left(tiny_path):
    """As many tokens as all of them could use, but no more than a share of what is left; what a person says goes first."""

    async def tokens(**load):
        options = LoadOptions(backend="reference", context=256, **load)
        async with registry_of(tiny_path, load=options) as registry, registry.use(None) as served:
            limits = served.model.step.limits
            return limits.rows, limits.pool * 128

    assert asyncio.run(tokens(sequences=4)) == (4, 1024)
    assert asyncio.run(tokens(sequences=4, kv_tokens=512)) == (4, 512)
    assert asyncio.run(tokens(sequences=1)) == (1, 256)
    assert asyncio.run(tokens(sequences=4, memory_bytes=16 << 20))[1] <= 1024


def test_the_model_answers(tiny_path):
    async def run():
        async with registry_of(tiny_path) as registry, registry.use(None) as served:
            return served.model.generate("Hello", **vars(Sampling(max_tokens=4, temperature=0)))

    assert isinstance(asyncio.run(run()), str)
