"""What a person is told once: run and chat on standard error, info on its page, as JSON in a list."""

import io
import json
import sys

import pytest

from lacewing.cli import main
from tests.checkpoints import tiny
from tests.models.test_notices import NOTICE, multimodal


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return multimodal("llama4", tmp_path_factory.mktemp("multimodal"))


def test_run_and_info(path, monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["lacewing", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr()

    told = call("run", path, "Hi", "--backend", "reference", "--max-tokens", "1")
    assert told.err.splitlines() == [f"lacewing: {NOTICE}"] and NOTICE not in told.out
    assert call("info", path).out.splitlines()[-1] == f"notice: {NOTICE}"
    assert json.loads(call("info", path, "--json").out)["notices"] == [NOTICE]
    monkeypatch.setattr(sys, "stdin", io.StringIO("/context\n"))
    told = call("chat", path, "--backend", "reference", "--context", "64")
    assert told.err.count(NOTICE) == 1 and NOTICE not in told.out


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["lacewing", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        return capsys.readouterr()

    return call


BEYOND = "a context of 4096 tokens exceeds the 2048 that the model was trained on"


@pytest.mark.parametrize("context", [2048, 4096])
def test_a_context_beyond_the_trained_one(context, tiny_path, call, monkeypatch):
    """`run`, `chat`, `/model` and `info` tell it alike."""
    count, flags = int(context > 2048), ("--backend", "reference", "--context", context)
    told = call("run", tiny_path, "Hi", *flags, "--max-tokens", 1)
    assert told.err.count(BEYOND) == count and BEYOND not in told.out
    assert call("info", tiny_path, *flags).out.count(f"notice: {BEYOND}") == count
    assert sum(BEYOND in notice for notice in json.loads(call("info", tiny_path, "--json", *flags).out)["notices"]) == count
    monkeypatch.setattr(sys, "stdin", io.StringIO("/context\n"))
    assert call("chat", tiny_path, *flags).err.count(BEYOND) == count
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"/model {tiny_path} --context {context}\n"))
    assert call("chat", tiny_path, "--backend", "reference", "--context", 64).err.count(BEYOND) == count


def test_look_ahead_of_a_dense_model(tiny_path, call, tmp_path):
    """Is told to have none to work on; that of a mixture tells nothing."""
    told, flags = "--look-ahead has no effect: it is for mixtures of experts", ("--backend", "reference", "--context", 64)
    assert told in call("run", tiny_path, "Hi", *flags, "--max-tokens", 1, "--look-ahead").err
    assert told not in call("run", tiny_path, "Hi", *flags, "--max-tokens", 1).err
    assert f"notice: {told}" in call("info", tiny_path, *flags, "--look-ahead").out
    assert told not in call("info", tiny("qwen3moe", "gguf", tmp_path, "Q8_0"), *flags, "--look-ahead").out


def test_a_dense_model_where_the_configuration_streams(tiny_path, call, monkeypatch):
    """It runs, and says that nothing of it is streamed; whoever asks for it on the line is refused."""
    told, flags = "this model is dense, so nothing of it is streamed", ("--backend", "cpu", "--context", 64, "--max-tokens", 1)
    monkeypatch.setenv("LACEWING_RESIDENCY", "streamed")
    assert told in call("run", tiny_path, "Hi", *flags).err
    monkeypatch.delenv("LACEWING_RESIDENCY")
    assert told not in call("run", tiny_path, "Hi", *flags).err
    refused = call("run", tiny_path, "Hi", *flags, "--residency", "streamed", code=2)
    assert "only mixtures of experts" in refused.err


def test_bench_and_stats(path, call, tmp_path):
    """On standard error, beside JSON too."""
    words = tmp_path / "words.txt"
    words.write_text("Hello, world.", encoding="utf-8")
    flags = ("--backend", "reference", "--json")
    for told in (
        call("bench", path, "--prompt", 4, "--generate", 2, "--repeats", 1, *flags),
        call("stats", path, "--text", words, *flags),
    ):
        assert told.err.count(f"lacewing: {NOTICE}\n") == 1 and json.loads(told.out)


def test_an_answer_that_repeats_itself(tiny_path, call, monkeypatch):
    monkeypatch.setattr("lacewing.text.streaming.RepeatGuard._repeats", lambda self, count: True)
    words = ("run", tiny_path, "Hello", "--backend", "reference", "--context", 128, "--temperature", 0, "--max-tokens", 40)
    told = call(*words, "--repeat-guard", 32)
    assert told.err == "lacewing: the answer repeated itself and was ended; --repeat-guard 0 lets it go on\n"
    found = json.loads(call(*words, "--repeat-guard", 32, "--json").out)
    assert found["finish_reason"] == "repetition" and found["generated_tokens"] == 16
    assert json.loads(call(*words, "--json", "--repeat-guard", 0).out)["finish_reason"] == "length"
    monkeypatch.setattr(sys, "stdin", io.StringIO("/repeat-guard 32\nHello\n/repeat-guard off\nHello\n/repeat-guard\n/seed -1\n"))
    told = call("chat", *words[1:2], *words[3:])
    assert told.err.count("the answer repeated itself and was ended; /repeat-guard off lets it go on") == 1
    assert "repeat guard 0\n" in told.err and "seed random" in told.err


def test_errors_of_a_chat_name_its_commands(tiny_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("/max-tokens -5\n/temperature 500\n/model - --gpu-layers many\n"))
    monkeypatch.setattr(sys, "argv", ["lacewing", "chat", str(tiny_path), "--backend", "reference", "--context", "64"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err.splitlines()
    assert [line.split(" is ")[0] for line in told] == ["lacewing: /max-tokens", "lacewing: /temperature", "lacewing: --gpu-layers"]
    assert told[0].endswith("it must be an integer from 0 to 2147483648, or -1 (no limit)")
