"""What a person chooses, at the edges of what is taken."""

import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import lacewing
from lacewing.errors import OptionError
from lacewing.options import (
    LoadArguments,
    LoadOptions,
    Sampling,
    SamplingArguments,
    bytes_at_least,
    counted,
    format_bytes,
    make_sampling,
    parse_bytes,
    parse_layers,
    spelled,
)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("4GiB", 4 << 30), ("800MB", 800_000_000), ("1.5g", 1_500_000_000), (" 7 kib ", 7168), ("12", 12), (12, 12), (None, None)],
)
def test_sizes(text, nbytes):
    assert parse_bytes(text) == nbytes


def test_sizes_that_are_told_are_enough_when_they_are_given():
    assert [bytes_at_least(count) for count in (1, 1023, 1024, 1025, 5 << 30, (5 << 30) + 1)] == [
        "1B", "1023B", "1.0KiB", "1.1KiB", "5.0GiB", "5.1GiB"]  # fmt: skip
    for exponent in range(18):
        for count in (10**exponent // 7 + 1, 2**exponent - 1, 3 * 2**exponent + 1):
            if count:
                assert count <= parse_bytes(bytes_at_least(count)) <= 1.11 * count


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "0", 0, -5, "1e9", "4XB", "nan", True, "9" * 30, "1 2", "0.2"])
def test_what_is_no_size(text):
    with pytest.raises(OptionError, match="must be a size"):
        parse_bytes(text)


def test_types_of_the_kv_cache():
    assert [LoadOptions(kv_type=each).kv_type for each in (None, "f16", "f32", "q8_0")] == [None, "f16", "f32", "q8_0"]
    with pytest.raises(OptionError, match="`kv_type` is 'q4_0'; it must be one of f16, f32, q8_0"):
        LoadOptions(kv_type="q4_0")


def test_layers():
    assert [parse_layers(each) for each in (None, "auto", "20", 0)] == [None, None, 20, 0]
    for wrong in ("-1", "1.5", True, "many", "9" * 9):
        with pytest.raises(OptionError, match="number of layers"):
            parse_layers(wrong)


def test_sizes_for_people():
    assert [format_bytes(count) for count in (0, 1023, 1024, 3 << 30, 5 << 40, -2048)] == [
        *("0 B", "1023 B", "1.0 KiB", "3.0 GiB", "5.0 TiB", "-2.0 KiB"),
    ]


@pytest.mark.parametrize(
    ("field", "value", "range"),
    [
        ("seed", 2**63, "from 0 to 9223372036854775807"),
        pytest.param("seed", 10**5000, "an integer of 16610 bits; it must be an integer", id="too long to be written"),
        pytest.param("temperature", "hot" * 100, "is 'hothothot", id="a long word"),
        ("temperature", 10**400, "an integer of 1329 bits; it must be a number"),
        ("temperature", float("nan"), "a number from 0 to 100"),
        ("top_p", float("inf"), "inf; it must be a number from 0 to 1"),
        ("repeat_penalty", 0, "from 0.01 to 100"),
        ("top_k", 1.5, "an integer from 0 to 2147483648"),
        ("max_tokens", True, "an integer from 0"),
        ("logit_bias", {-1: 0.0}, "a token of `logit_bias` is -1"),
        ("stop", ("",), "text of 1 to 256 characters"),
    ],
)
def test_the_message_names_the_range(field, value, range):
    with pytest.raises(OptionError, match=range):
        Sampling(**{field: value})
    assert Sampling(seed=2**63 - 1).seed == 2**63 - 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("residency", "resident"),
        ("context", 0),
        ("threads", 1025),
        ("memory_bytes", 2**61),
        ("gpu_layers", -1),
        ("gpu_memory_bytes", 0),
        ("cold_start", "maybe"),
        ("look_ahead", 1),
    ],
)
def test_options_of_loading(field, value):
    with pytest.raises(OptionError, match=field.removesuffix("_bytes")):
        LoadOptions(**{field: value})


def test_numbers_of_numpy_are_numbers():
    options = {
        "seed": np.int64(3),
        "temperature": np.float32(0.5),
        "max_tokens": np.uint8(4),
        "logit_bias": {np.int64(5): np.float32(1)},
    }
    made = make_sampling(options)
    assert made == Sampling(seed=3, temperature=0.5, max_tokens=4, logit_bias={5: 1.0})
    assert {type(value) for value in (made.seed, made.temperature, *made.logit_bias)} == {int, float}
    for wrong in ({"temperature": np.float32("nan")}, {"seed": np.int64(-2)}, {"top_k": np.bool_(True)}, {"seed": np.arange(2)}):
        with pytest.raises(OptionError):
            make_sampling(wrong)


def test_unknown_options_of_sampling_are_named():
    assert make_sampling({"stop": "end"}).stop == ("end",) and make_sampling({"stop": None}).stop == ()
    with pytest.raises(OptionError, match="'temprature' is not a sampling option"):
        make_sampling({"temprature": 1})
    with pytest.raises(OptionError, match="`stop` must be a string"):
        make_sampling({"stop": 5})


def test_counted_forms_agree():
    assert [counted(count, "file") for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert (counted(1, "entry", "entries"), counted(3, "entry", "entries")) == ("1 entry", "3 entries")


@pytest.mark.parametrize(("name", "meaning"), [("seed", None), ("max_tokens", None), ("top_k", 0), ("repeat_window", 2**31)])
def test_minus_one_is_random_or_no_limit(name, meaning):
    """As for llama.cpp, Ollama and vLLM; all else below zero is an error that says so."""
    assert getattr(Sampling(**{name: -1}), name) == meaning
    assert Sampling(**{name: -1}) == make_sampling({name: np.int32(-1)}) == Sampling(**{name: meaning})
    with pytest.raises(OptionError, match=rf"^`{name}` is -2; it must be an integer from 0 to \d+, or -1 \("):
        Sampling(**{name: -2})


WRONG = {
    **dict.fromkeys(("backend", "residency", "kv_type"), "nothing"),
    **dict.fromkeys(("memory", "gpu_memory"), "5 apples"),
    **dict.fromkeys(("context", "threads", "sequences", "kv_tokens", "gpu_layers", "max_tokens", "top_k", "seed", "logprobs"), -7),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"), 1e6),
    **dict.fromkeys(("repeat_window", "repeat_guard"), -7),
    "logit_bias": "a" * 5000,
    "ignore_eos": "maybe",
    "stop": [""],
    "adapter": "no such GPU",
}


EACH = [pytest.param(name, marks=pytest.mark.gpu) if name == "adapter" else name for name in WRONG]  # it is looked up


@pytest.mark.parametrize("name", EACH)
def test_errors_name_arguments_in_the_api(name, tiny_path):
    """And say what is allowed, in plain words."""
    with pytest.raises(OptionError) as raised:
        if name in LoadArguments.__annotations__:
            lacewing.load(tiny_path, **{name: WRONG[name]}).close()
        else:
            make_sampling({name: WRONG[name]})
    text = str(raised.value)
    assert name == "adapter" or f"`{name}`" in text
    assert "--" not in text and len(text) < 400
    assert not any(word in text for word in ("Input should", "type=", "validation error", "not a valid"))


@pytest.mark.parametrize("name", EACH)
def test_errors_name_flags_on_the_command_line(name, tiny_path, monkeypatch, capsys):
    from lacewing.cli import main
    from lacewing.cli.flags import load_options, sampling_options

    flags = [*inspect.signature(load_options).parameters, *inspect.signature(sampling_options).parameters]
    if name not in flags:
        pytest.skip("the command line has no such flag")
    flag, value = f"--{name.replace('_', '-')}", WRONG[name]
    words = [flag, *value] if isinstance(value, list) else [flag, str(value)]
    monkeypatch.setattr(sys, "argv", ["lacewing", "run", str(tiny_path), "Hello", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1
    assert name == "adapter" or flag in told
    assert (f"`{name}" not in told and not re.search(rf"\b{name}\b", told.replace(flag, ""))) or "_" not in name


def test_all_options_are_tried():
    switches = {"ignore_keys", "follow_links", "cold_start", "look_ahead"}  # no numbers and no choices
    loading = set(LoadArguments.__annotations__) - {"progress", *switches}
    assert set(WRONG) == loading | set(SamplingArguments.__annotations__)


def test_messages_name_options_in_one_way():
    """Between backticks, as `spelled` reads them; nothing below the command line and the chat writes flags."""
    flags = [f"--{name.replace('_', '-')}" for name in (*LoadArguments.__annotations__, *SamplingArguments.__annotations__)]
    source = Path(lacewing.__file__).parent
    for file in source.rglob("*.py"):
        part = file.relative_to(source).parts[0]
        if part not in ("cli", "chat", "server"):
            found = [flag for flag in flags if re.search(rf"{flag}\b(?!-)", file.read_text(encoding="utf-8"))]
            assert not found or file.name == "options.py", f"{file}: {found}"


def test_spelling():
    text = "`max_tokens` is 5; use `backend='cpu'`, a smaller `context`, or `lacewing list` and `this`"
    assert spelled(text) == "--max-tokens is 5; use --backend cpu, a smaller --context, or `lacewing list` and `this`"
    assert spelled("`max_tokens` or `context`", chat=True) == "/max-tokens or --context"
    assert spelled("`reasoning_effort` is 1") == "--reasoning-effort is 1"
    assert spelled("`reasoning_budget` or `reasoning_effort`", chat=True) == "/thinking-budget or /thinking"
