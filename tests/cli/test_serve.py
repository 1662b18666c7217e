"""`lacewing serve` as a process: what it prints, how it ends, what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from lacewing.cli import main, serve
from lacewing.errors import LacewingError
from lacewing.server.models.names import Catalogue
from lacewing.server.options import ServerOptions
from lacewing.server.security.binding import bind
from tests.timing import in_time, timely

ENDLESS = {
    "max_tokens": 1900,
    "ignore_eos": True,
    "logit_bias": {"0": -100, "2": -100},
    "stream": True,
    "messages": [{"role": "user", "content": "Hello"}],
}


class Process:
    """A server; `lines` of its standard output so far."""

    def __init__(self, *words: str | Path):
        command = [sys.executable, "-m", "lacewing", "serve", *map(str, words), "--port", "0", "--backend", "cpu", "--quiet"]
        environment = {**os.environ, "PYTHONWARNINGS": "error"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "serving" in line, (line, self.process.stderr.read() if not line else "")
        self.endless = {**ENDLESS, "model": re.search(r"serving (\S+) at", line)[1]}
        self.url = re.search(r"http://\S+/v1", line)[0].removesuffix("/v1")
        self.curl = self.process.stdout.readline()

    def ready(self) -> None:
        until = time.monotonic() + 60
        while httpx.get(f"{self.url}/health").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)

    def stream(self) -> tuple[list[str], threading.Thread]:
        """Lines of an answer that does not end by itself, as they come."""
        lines: list[str] = []

        def read() -> None:
            try:
                with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=self.endless, timeout=60) as answer:
                    for line in answer.iter_lines():
                        lines.append(line)
            except httpx.HTTPError as error:
                lines.append(f"broken: {error!r}")

        thread = threading.Thread(target=read)
        thread.start()
        until = time.monotonic() + 60
        while sum(line.startswith("data: ") for line in lines) < 4:
            assert time.monotonic() < until and thread.is_alive(), lines
            time.sleep(0.02)
        return lines, thread

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        try:
            _, errors = self.process.communicate(timeout=30)
        finally:
            self.process.kill()
        return self.process.returncode, errors


def test_it_says_how_to_call_it_and_that_works(smollm2_path):
    server = Process(smollm2_path)
    try:
        server.ready()
        words = server.curl.replace("'", "").split(" -d ")
        answer = httpx.post(words[0].split()[1], json={**json.loads(words[1]), "max_tokens": 3}, timeout=60)
        assert answer.status_code == 200 and answer.json()["model"] == smollm2_path.stem
        refused = httpx.get(f"{server.url}/v1/models", headers={"host": "evil.example"})
        assert refused.status_code == 421
        assert httpx.post(f"{server.url}/v1/chat/completions", content="{}").status_code == 415
    finally:
        code, errors = server.end()
    assert (code, errors) == (0, "")


def test_it_says_when_the_model_is_there(smollm2_path):
    """Before, it listens: its health says that it is loading, and requests wait."""
    server = Process(smollm2_path)
    try:
        health = httpx.get(f"{server.url}/health")
        assert health.status_code == 503 and health.json()["status"] == "loading"
        body = {"model": server.endless["model"], "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        assert httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
        line = server.process.stdout.readline()
        assert re.fullmatch(
            rf"ready: {smollm2_path.stem} \(\w+ weights, cpu, context 8192, up to 16 answers at a time\), after [\d.]+ s\n", line
        )
        assert httpx.get(f"{server.url}/health").status_code == 200
    finally:
        server.end()


def test_the_first_load_may_be_given_up(smollm2_path):
    """The server goes on without a model, and the next request loads it."""
    server = Process(smollm2_path)
    try:
        body = {"model": server.endless["model"], "force": True, "wait": True}
        assert httpx.get(f"{server.url}/health").json()["status"] == "loading"
        assert httpx.post(f"{server.url}/models/unload", json=body, timeout=60).status_code == 200
        assert httpx.get(f"{server.url}/models").json()["data"][0]["status"]["value"] == "unloaded"
        body = {"model": server.endless["model"], "prompt": "Hello", "max_tokens": 2}
        assert httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 200
    finally:
        code, errors = server.end()
    assert code == 0 and "Traceback" not in errors


@pytest.mark.parametrize(("on_demand", "told"), [(False, "loading tiny"), (True, "ready: models are loaded when requests ask")])
def test_what_it_says_first(on_demand, told, tiny_path, capsys):
    options = ServerOptions(models=(str(tiny_path),), on_demand=on_demand, port=0)
    binding = bind(options)
    try:
        serve._announce(binding, Catalogue(options), options)
    finally:
        binding.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"serving {tiny_path.stem} at {binding.url}/v1 (Ctrl-C ends it)" and lines[1].startswith("curl ")
    assert lines[2].startswith(told.replace("tiny", tiny_path.stem)) and len(lines) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_answers_finish_up_to_a_limit(number, smollm2_path):
    server = Process(smollm2_path, "--shutdown-seconds", "2.5")
    server.ready()
    lines, thread = server.stream()
    server.process.send_signal(number)
    while (health := httpx.get(f"{server.url}/health")).status_code == 200:
        time.sleep(0.02)
    assert health.json()["status"] == "draining"
    refused = httpx.post(f"{server.url}/v1/chat/completions", json=server.endless)
    assert refused.status_code == 503 and refused.headers["retry-after"]
    before = len(lines)
    began = time.monotonic()
    code, errors = server.wait()
    assert code == 0 and time.monotonic() - began < 12 and "Traceback" not in errors
    thread.join()
    assert len(lines) > before  # it went on until the limit, and then its client was told
    assert any("error" in line for line in lines[-3:]) and not any("broken" in line for line in lines), lines[-3:]


def test_an_answer_that_ends_in_time_ends_the_server(smollm2_path):
    server = Process(smollm2_path, "--shutdown-seconds", "60")
    server.ready()
    found = []
    body = {**server.endless, "max_tokens": 40}

    def read() -> None:
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                found.append(line)

    thread = threading.Thread(target=read)
    thread.start()
    while len(found) < 3:
        time.sleep(0.01)
    code, errors = server.end()
    thread.join()
    assert (code, errors) == (0, "") and "data: [DONE]" in found[-3:]


@timely
def test_a_second_signal_ends_at_once(smollm2_path):
    server = Process(smollm2_path, "--shutdown-seconds", "60")
    server.ready()
    _, thread = server.stream()
    server.process.send_signal(signal.SIGTERM)
    while httpx.get(f"{server.url}/health").status_code == 200:  # two signals that are not seen yet are one
        time.sleep(0.02)
    began = time.monotonic()
    code, errors = server.end(signal.SIGTERM)
    seconds = time.monotonic() - began
    assert code == 0 and "Traceback" not in errors
    thread.join()
    in_time(seconds, 4)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "nothing to serve"),
        (("MODEL", "--host", "0.0.0.0"), 2, "--api-key"),
        (("MODEL", "--port", "70000"), 2, "--port"),
        (("MODEL", "--cors-origin", "*"), 2, "--cors-origin"),
        (("none.gguf",), 1, "no file"),
        (("DAMAGED", "--port", "0"), 1, "damaged"),
    ],
)
def test_what_is_refused(words, code, said, tiny_path, tmp_path, monkeypatch, capsys):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny_path.read_bytes()[:5000])
    places = {"MODEL": str(tiny_path), "DAMAGED": str(damaged)}
    monkeypatch.setattr(sys, "argv", ["lacewing", "serve", *(places.get(word, word) for word in words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code and said in capsys.readouterr().err


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None if name in ("starlette", "uvicorn") else name)
    with pytest.raises(
        LacewingError,
        match=r"needs starlette, uvicorn; run: pip install 'lacewing\[server\]' \(in a clone: pip install '\.\[server\]'\)",
    ):
        serve.check_libraries()


def test_keys_are_not_shown(monkeypatch, capsys):
    monkeypatch.setenv("LACEWING_API_KEY", "very-secret-key")
    for words in (("config",), ("config", "--json")):
        monkeypatch.setattr(sys, "argv", ["lacewing", *words])
        with pytest.raises(SystemExit):
            main()
        output = capsys.readouterr().out
        assert "very-secret" not in output and "not shown" in output


@timely
def test_one_who_watches_models_does_not_keep_it(tiny_path):
    """Events of models have no end of their own; the server is not to wait for them as for answers."""
    server = Process(tiny_path)
    server.ready()
    with httpx.stream("GET", f"{server.url}/models/sse", timeout=30) as watching:
        lines = watching.iter_lines()  # held: the connection closes with it
        assert "model_status" in next(lines)
        began = time.monotonic()
        code, errors = server.end()
        seconds = time.monotonic() - began  # it does not wait for the watcher
        assert not any(line.startswith("data: {") for line in lines)  # the response is whole
    assert (code, errors) == (0, "")
    in_time(seconds, 5)
