import dataclasses
import gc
import inspect
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import lacewing
from lacewing import LacewingError
from lacewing.api import Model
from lacewing.assistant.grammar.choices import GrammarArguments
from lacewing.assistant.options import ChatArguments, ChatOptions, TextArguments
from lacewing.errors import ContextOverflowError, DownloadError, ModelFormatError, OptionError, OutOfMemoryError, TemplateError
from lacewing.options import LoadArguments, LoadOptions, Sampling, SamplingArguments
from tests.checkpoints import tiny
from tests.tolerance import assert_equal_up_to_rounding

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def model(tiny_path):
    """On the CPU backend, whose bits do not depend on how much of a prompt is cached, so that texts can be compared."""
    with lacewing.load(tiny_path, backend="cpu", context=128, threads=2) as model:
        yield model


def test_import_is_light():
    code = (
        "import sys, lacewing; print([m for m in ('numpy', 'numba', 'tokenizers', 'jinja2', 'typer', 'rich') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_names():
    assert dir(lacewing) == sorted(lacewing.__all__)
    for name in lacewing.__all__:
        assert getattr(lacewing, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = lacewing.nothing


def test_logits(model):
    rows = model.logits([1, 2, 3])
    assert rows.shape == (3, model.spec.vocab_size) and rows.dtype == np.float32
    assert np.array_equal(model.logits([1, 2])[1], rows[1])


def test_logits_of_the_reference_backend(tiny_path):
    with lacewing.load(tiny_path, backend="reference", context=128) as model:
        rows = model.logits([1, 2, 3])
        assert rows.shape == (3, model.spec.vocab_size) and rows.dtype == np.float32
        assert_equal_up_to_rounding(model.logits([1, 2]), rows[:2])


def test_logits_need_no_tokenizer(tmp_path):
    path = tiny("llama", "huggingface", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink(missing_ok=True)
    with lacewing.load(path, backend="reference") as model:
        assert model.logits([1, 2, 3]).shape[0] == 3
        with pytest.raises(LacewingError):
            model.generate("x")


def test_generate_stream_and_chat_agree(model):
    text = model.generate("Hello world", max_tokens=12, temperature=0)
    assert isinstance(text, str)
    assert "".join(model.stream("Hello world", max_tokens=12, temperature=0)) == text
    deltas = list(model.chat(MESSAGES, max_tokens=12, temperature=0))
    assert "".join(deltas) == "".join(model.chat(MESSAGES, max_tokens=12, temperature=0))
    assert model.stats["generated_tokens"] <= 12 and model.stats["reused_tokens"] > 0


@pytest.mark.parametrize("source", ["gguf", "huggingface"])
def test_control_tokens_in_a_prompt_on_request_only(tmp_path, source):
    with lacewing.load(tiny("llama", source, tmp_path), backend="reference", context=128) as model:
        (text, token), *_ = model.tokenizer.control_tokens.items()
        prompt = f"Hello {text}Hello"
        counts = []
        for special in (False, True):
            stream = model.stream(prompt, special=special, max_tokens=1, temperature=0)
            assert "".join(stream) == model.generate(prompt, special=special, max_tokens=1, temperature=0)
            counts.append(model.stats["prompt_tokens"])
        assert counts == [len(model.tokenizer.encode_prompt(prompt, markup=each)) for each in (False, True)]
        assert counts[0] > counts[1] and model.tokenizer.encode_prompt(prompt, markup=True)[1:].count(token) == 1
        message = [{"role": "user", "content": prompt}]
        ids, calm = (
            model.template.encode(each, model.tokenizer) for each in (message, [{"role": "user", "content": "Hello Hello"}])
        )
        assert ids.count(token) == calm.count(token)
        with pytest.raises(OptionError, match="special"):
            model.chat(message, special=True)


def test_several_texts_at_once(tiny_path):
    words = ["Hello world", "x", "One two three", "Hello"]
    options = {"max_tokens": 12, "temperature": 0}
    with lacewing.load(tiny_path, backend="cpu", context=128, threads=1, sequences=3) as model:
        expected = [model.generate(word, **options) for word in words]
        assert model.generate(words, **options) == model.generate(tuple(words), **options) == expected
        stop = expected[0][3:5]
        assert model.generate(words, **options, stop=stop) == [model.generate(word, **options, stop=stop) for word in words]
        assert model.generate([]) == []
        with pytest.raises(ContextOverflowError):
            model.generate(["Hello", "word " * 200])
        assert not model.engine.scheduler.running


def test_several_answers(model):
    answers = model.answers(MESSAGES, 3, max_tokens=6, temperature=2.0, seed=5)
    texts = ["".join(answer) for answer in answers]
    assert len(set(texts)) > 1
    assert texts == ["".join(model.chat(MESSAGES, max_tokens=6, temperature=2.0, seed=seed)) for seed in (5, 6, 7)]
    for count in (0, -1, 1000, 1.5, True):
        with pytest.raises(OptionError, match="answers"):
            model.answers(MESSAGES, count)


def test_seeds(model):
    options = {"max_tokens": 12, "temperature": 1.5}
    assert model.generate("a", seed=1, **options) == model.generate("a", seed=1, **options)
    assert len({model.generate("a", seed=seed, **options) for seed in range(4)}) > 1


def test_stop_as_string_or_list(model):
    text = model.generate("Hello", max_tokens=20, temperature=0)
    stop = text[5:7]
    for form in (stop, [stop], (stop, "never this")):
        assert model.generate("Hello", max_tokens=20, temperature=0, stop=form) == text[: text.index(stop)]


def test_residency_changes_nothing(tiny_path):
    with lacewing.load(tiny_path, backend="reference", residency="lazy") as model:
        before = model.logits([1, 2, 3, 4])
        seen = []
        model.set_residency("eager", progress=lambda *step: seen.append(step))
        assert model.weights.residency == model.plan.residency == "eager"
        assert seen and seen[-1][1] == seen[-1][2]
        assert_equal_up_to_rounding(model.logits([1, 2, 3, 4]), before)
        model.set_residency("lazy")
        assert_equal_up_to_rounding(model.logits([1, 2, 3, 4]), before)


def test_residency_changes_while_another_thread_generates(tiny_path):
    """The memory of the old residency stays until no step reads it."""
    with lacewing.load(tiny_path, backend="cpu", residency="lazy", threads=2, context=256) as model:
        options = {"max_tokens": 60, "temperature": 0}
        expected, found, done = model.generate("Hello", **options), [], threading.Event()

        def work():
            while not done.is_set():
                found.append(model.generate("Hello", **options))

        worker = threading.Thread(target=work)
        worker.start()
        for _ in range(20):
            model.set_residency("eager")
            assert any(weight.tiled is not None for weight in model.weights.values())
            model.set_residency("lazy")
        done.set()
        worker.join()
        assert found and set(found) == {expected}


def test_a_file_that_changes_is_noticed(tiny_path, tmp_path):
    path = tmp_path / "copy.gguf"
    path.write_bytes(tiny_path.read_bytes())
    with lacewing.load(path, backend="reference", residency="lazy", context=64) as model:
        os.utime(path, ns=(0, 0))
        for use in (lambda: model.logits([1]), lambda: model.generate("Hello"), lambda: model.chat(MESSAGES)):
            with pytest.raises(ModelFormatError, match="changed"):
                use()


def test_files_are_not_looked_at_for_every_token(tiny_path, tmp_path, monkeypatch):
    """At the beginning and the end of a request, and else once a second; a truncated file fails the next request."""
    looks = []
    with lacewing.load(tiny_path, backend="reference", residency="lazy", context=64) as model:
        check = model.weights._check_files
        monkeypatch.setattr(model.weights, "_check_files", lambda: looks.append(1) or check())
        for count in (2, 40):
            looks.clear()
            model.generate("Hello", max_tokens=count, temperature=0)
            assert len(looks) <= 4
    path = tmp_path / "copy.gguf"
    path.write_bytes(tiny_path.read_bytes())
    with lacewing.load(path, backend="reference", residency="lazy", context=64) as model:
        model.generate("Hello", max_tokens=2)
        os.truncate(path, 4096)
        with pytest.raises(ModelFormatError, match="changed"):
            model.generate("Hello", max_tokens=2)


def test_a_model_does_not_come_back_from_another_file(tiny_path, tmp_path):
    path, other = tmp_path / "copy.gguf", tmp_path / "other.gguf"
    for each in (path, other):
        each.write_bytes(tiny_path.read_bytes())
    for residency in ("lazy", "eager"):
        model = lacewing.load(path, backend="reference", residency=residency, context=64)
        model.close()
        model.return_to_device()
        assert model.generate("Hello", max_tokens=2, temperature=0)
        model.close()
        other.replace(path)
        with pytest.raises(ModelFormatError, match="changed or was replaced after it was opened; load the model again"):
            model.return_to_device()
        assert not model.on_device
        other.write_bytes(tiny_path.read_bytes())
        with lacewing.load(path, backend="reference", context=64) as again:
            assert again.generate("Hello", max_tokens=2, temperature=0)


def test_what_is_shown_of_a_model(tiny_path):
    with lacewing.load(tiny_path, backend="reference", residency="lazy", context=64) as model:
        assert repr(model) == f"<Model {model.spec.name!r}, llama, lazy (reference), context 64>"
        stream = model.stream("Hello", max_tokens=3, temperature=0)
        assert repr(stream) == "<Answer, 0 tokens, not finished>"
        list(stream)
        assert repr(stream) == "<Answer, 3 tokens, length>"
        model.set_residency("eager")
        assert "eager" in repr(model)
    assert repr(model).endswith("closed, context 64>")


def test_keyword_arguments_are_told_to_editors():
    """The types that are unpacked in signatures have the fields of the options that are made of them."""
    sampling = [field.name for field in dataclasses.fields(Sampling)]
    assert list(SamplingArguments.__annotations__) == sampling
    grammar = GrammarArguments.__annotations__
    assert {*ChatArguments.__annotations__} - {*sampling} - {*grammar} == {field.name for field in dataclasses.fields(ChatOptions)}
    assert {*grammar} <= {*ChatArguments.__annotations__} and {*TextArguments.__annotations__} == {*sampling, *grammar}
    renamed = {"memory": "memory_bytes", "gpu_memory": "gpu_memory_bytes"}
    given = {renamed.get(name, name) for name in LoadArguments.__annotations__} - {"progress"}
    own = {"residency_is_default"}  # of the command line, the chat and the server, whose wishes are for models in general
    assert given == {field.name for field in dataclasses.fields(LoadOptions)} - own
    for function, name in (
        (lacewing.load, "options"),
        *((each, "options") for each in (Model.generate, Model.stream, Model.agenerate, Model.astream)),
        *((each, "options") for each in (Model.chat, Model.answers, Model.achat)),
    ):
        assert "Unpack[" in str(inspect.signature(function).parameters[name])


def test_unknown_arguments(tiny_path):
    with pytest.raises(OptionError, match="'gpus' is not an option of load; there are backend, "):
        lacewing.load(tiny_path, gpus=2)


def test_residency_that_cannot_be(tiny_path):
    options = {"backend": "reference", "residency": "lazy", "context": 64}
    with lacewing.load(tiny_path, **options) as model:
        needed = model.plan.needed_bytes
    with lacewing.load(tiny_path, **options, memory=needed + 1000) as model:
        before = model.logits([5])
        with pytest.raises(OutOfMemoryError):
            model.set_residency("eager")
        with pytest.raises(OptionError):
            model.set_residency("fast")
        assert model.weights.residency == "lazy"
        assert_equal_up_to_rounding(model.logits([5]), before)


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"residency": "fast"}, OptionError, "residency"),
        ({"backend": "abacus"}, OptionError, "abacus"),
        ({"memory": "much"}, OptionError, "memory"),
        ({"memory": "1kB"}, OutOfMemoryError, "context"),
        ({"context": 0}, OptionError, "context"),
        ({"threads": -1}, OptionError, "threads"),
    ],
)
def test_bad_load_options(tiny_path, options, error, words):
    with pytest.raises(error, match=words):
        lacewing.load(tiny_path, **({"backend": "reference"} | options))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"logit_bias": {10**6: 1.0}}, "logit_bias"),
        ({"logit_bias": [1]}, "a dict"),
        ({"max_tokens": 2**40}, "from 0 to 2147483648"),
        ({"colour": 1}, "colour"),
    ],
)
def test_bad_sampling(model, options, words):
    with pytest.raises(OptionError, match=words):
        model.generate("x", **options)


def test_errors_of_prompts(model):
    with pytest.raises(ContextOverflowError, match="128"):
        model.generate("word " * 200)
    with pytest.raises(OptionError, match="outside"):
        model.logits([10**6])
    with pytest.raises(LacewingError):
        model.chat([{"content": "x"}])
    with pytest.raises(TemplateError, match="at least one message"):
        model.chat([])


def test_missing_files(tmp_path):
    for name in (tmp_path / "none.gguf", "nothing-of-that-name"):
        with pytest.raises(DownloadError, match="no file"):
            lacewing.load(name)


def test_load_tokenizer(tiny_path):
    tokenizer = lacewing.load_tokenizer(tiny_path)
    ids = tokenizer.encode("Hello world <|im_end|>")
    assert tokenizer.decode(ids) == "Hello world <|im_end|>" and not tokenizer.stop_ids & set(ids)


def test_load_tokenizer_of_a_directory_without_weights(tmp_path):
    path = tiny("llama", "huggingface", tmp_path)
    expected = lacewing.load_tokenizer(path).encode("Hello world")
    (path / "model.safetensors").unlink()
    for name in (path, str(path), path / "tokenizer.json"):
        assert lacewing.load_tokenizer(name).encode("Hello world") == expected
    with pytest.raises(ModelFormatError, match="neither"):
        lacewing.load(path)
    (path / "tokenizer.json").unlink()
    with pytest.raises(ModelFormatError, match="neither"):
        lacewing.load_tokenizer(path)
    (path / "tokenizer.json").symlink_to(__file__)
    with pytest.raises(ModelFormatError, match="leaves its folder"):
        lacewing.load_tokenizer(path)


def test_load_tokenizer_of_a_folder_with_a_gguf_file(tiny_path, tmp_path):
    (tmp_path / "model.gguf").write_bytes(tiny_path.read_bytes())
    (tmp_path / "tokenizer.json").write_text("{}")
    assert lacewing.load_tokenizer(tmp_path).encode("Hello") == lacewing.load_tokenizer(tiny_path).encode("Hello")


def test_numbers_of_numpy(tiny_path):
    with lacewing.load(tiny_path, backend="reference", context=np.int64(64), threads=np.int32(1)) as model:
        assert type(model.spec.context) is int and model.generate("Hello", max_tokens=np.int64(2), seed=np.uint32(1))


def test_hugging_face_directory(tmp_path):
    with lacewing.load(tiny("qwen3", "huggingface", tmp_path), backend="reference") as model:
        assert model.spec.architecture == "qwen3" and model.logits([1]).shape[1] == model.spec.vocab_size


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_going_back_behind_a_sliding_window(tmp_path, backend):
    path = tiny("gemma3", "gguf", tmp_path)
    options = {"max_tokens": 30, "temperature": 0}
    with lacewing.load(path, backend=backend, context=128) as model:
        model.generate("Hello world, this is a text much longer than the window", **options)
        later = [model.generate("Hello world, it is", **options), model.stats["reused_tokens"]]
        model.engine.forget()
        assert later[0] == model.generate("Hello world, it is", **options) and later[1] >= 3


def test_keys_and_values_move(tiny_path):
    ids = list(range(1, 60))
    with lacewing.load(tiny_path, backend="cpu", context=100) as one, lacewing.load(tiny_path, backend="cpu", context=80) as other:
        expected = one.engine.extend(ids).copy()
        one.engine.cached.pop()
        other.write_state(*one.read_state())
        assert np.array_equal(other.engine.extend(ids[-1:]), expected)
        held, data = one.read_state()
        for wrong in ((held, data[:-1]), (held, b"LWKV0009" + data[8:]), ([], data[:8]), (held * 2, data)):
            with pytest.raises(OptionError, match="another model"):
                other.write_state(*wrong)


def test_loading_can_be_cancelled(tiny_path):
    from lacewing.api import Model
    from lacewing.errors import Cancelled
    from lacewing.options import LoadOptions
    from lacewing.placement.info import ModelInfo

    for polls in range(4):
        asked = iter(range(100))
        with pytest.raises(Cancelled):
            Model(
                ModelInfo(tiny_path, LoadOptions("cpu", residency="eager", context=64)),
                cancelled=lambda p=polls, a=asked: next(a) >= p,
            )


def test_a_closed_model_says_so(tiny_path):
    model = lacewing.load(tiny_path, backend="reference")
    model.close()
    model.close()
    changes = [lambda to=to: model.set_residency(to) for to in ("lazy", "eager")]
    for use in (lambda: model.logits([1]), lambda: model.generate("a"), lambda: model.memory_bytes, *changes):
        with pytest.raises(lacewing.LacewingError, match="closed"):
            use()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_closed_model_gives_its_memory_back_at_once(tiny_path, backend):
    """Not when the collector of cycles comes by: keys, values and weights are large."""
    model = lacewing.load(tiny_path, backend=backend, context=64, threads=1, residency="eager")
    assert model.generate("Hello", max_tokens=2, temperature=0) is not None
    left = [weakref.ref(part) for part in (model.engine, model.step, model.weights, model.weights["output_norm.weight"].data)]
    gc.collect()
    gc.disable()
    try:
        model.close()
        del model
        assert [part() for part in left] == [None] * len(left)
    finally:
        gc.enable()


def test_a_file_that_changes_during_an_answer_fails_it(tiny_path, tmp_path, monkeypatch):
    monkeypatch.setattr("lacewing.weights.store.GLANCE_SECONDS", 0.0)
    path = tmp_path / "copy.gguf"
    path.write_bytes(tiny_path.read_bytes())
    with lacewing.load(path, backend="reference", residency="lazy") as model:
        stream = model.stream("a", max_tokens=4, temperature=0)
        next(stream)
        with open(path, "r+b") as file:
            file.write(b"GGUF")
        os.utime(path, ns=(1, 1))
        with pytest.raises(lacewing.LacewingError, match="changed"):
            list(stream)
        assert stream.finish_reason is None


@pytest.mark.parametrize("stop", [5, {"a": 1}])
def test_stop_must_be_text(tiny_path, stop):
    with lacewing.load(tiny_path, backend="reference") as model, pytest.raises(lacewing.LacewingError, match="`stop` must be"):
        model.generate("a", stop=stop)


@pytest.mark.parametrize("name", ["llama-wide", "gemma3-wide"])
def test_the_memory_that_is_told_is_that_of_the_plan(name, tmp_path):
    """Not that of 512 rows of logits, of which an answer uses one: half a GiB of Gemma's."""
    with lacewing.load(tiny(name, "gguf", tmp_path, "Q4_0"), backend="cpu", residency="eager", context=64) as model:
        planned = {row.name: row.nbytes for row in model.plan.rows}
        assert model.step.buffer_bytes <= 1.05 * planned["buffers"]
        assert model.memory_bytes <= 1.05 * planned["needed"]


def test_tokens_and_prompts_as_text(model):
    ids = model.tokenize("Hello <|im_end|>")
    assert model.detokenize(ids) == "Hello <|im_end|>" and model.tokenizer.control_tokens.keys().isdisjoint({"Hello"})
    marked = model.tokenize("Hello<|im_end|>", special=True)
    assert marked != model.tokenize("Hello<|im_end|>") and len(marked) < len(model.tokenize("Hello<|im_end|>"))
    assert model.detokenize(marked) == "Hello" and model.detokenize(marked, special=True) == "Hello<|im_end|>"
    text = model.render(MESSAGES)
    assert "Hello" in text and model.tokenize(text, special=True) == model.template.encode(MESSAGES, model.tokenizer)
    assert len(model.render(MESSAGES, add_generation_prompt=False)) < len(text)
    with pytest.raises(OptionError):
        model.detokenize(["a"])
