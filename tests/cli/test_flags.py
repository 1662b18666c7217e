"""Flags that commands share: each takes them all, and they arrive in the options."""

import inspect
import sys
from dataclasses import replace

import pytest
import typer

from lacewing.cli import flags, main
from lacewing.cli.app import app
from lacewing.options import LoadOptions, Sampling

WORDS = {
    "--backend": "reference",
    "--adapter": "1",
    "--residency": "lazy",
    "--memory": "3GiB",
    "--context": "77",
    "--threads": "2",
    "--gpu-layers": "4",
    "--gpu-memory": "1GiB",
}
LACKS = {"info": {"threads"}, "bench": {"cold_start"}}  # bench has --warm-start
OPTIONS = LoadOptions("reference", "lazy", 3 << 30, 77, 2, "1", 4, 1 << 30)
COMMANDS = {
    "run": ("lacewing.cli.run.run", ["model", "Hello"]),
    "chat": ("lacewing.cli.run.chat", ["model"]),
    "info": ("lacewing.cli.info.info", ["model"]),
    "bench": ("lacewing.cli.bench.bench", ["model"]),
    "embed": ("lacewing.cli.embed.embed", ["model", "text"]),
    "serve": ("lacewing.cli.serve.serve", ["model"]),
    "stats": ("lacewing.cli.stats.stats", ["model", "--text", "text"]),
}


def called(name, words, monkeypatch):
    """The arguments that the work of a command is given."""
    target, before = COMMANDS[name]
    seen = []
    monkeypatch.setattr(target, lambda *given, **named: seen.append((*given, *named.values())))
    monkeypatch.setattr(sys, "argv", ["lacewing", name, *before, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return seen[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_load_flags_arrive(name, monkeypatch):
    words = [word for flag, value in WORDS.items() if flag.strip("-") not in LACKS.get(name, ()) for word in (flag, value)]
    assert (replace(OPTIONS, threads=None) if name == "info" else OPTIONS) in called(name, words, monkeypatch)
    assert LoadOptions() in called(name, [], monkeypatch)


@pytest.mark.parametrize("name", ["run", "chat"])
def test_sampling_flags_arrive(name, monkeypatch):
    words = ["--max-tokens", "5", "--temperature", "0.5", "--top-k", "3", "--top-p", "0.8", "--min-p", "0.1", "--seed", "9"]
    assert Sampling(5, 0.5, 3, 0.8, 0.1, seed=9) in called(name, words, monkeypatch)
    assert Sampling() in called(name, [], monkeypatch)


def test_every_command_with_options_has_all_flags():
    expected = set(inspect.signature(flags.load_options).parameters)
    found = {command.name: {one.name for one in command.params} for command in typer.main.get_command(app).commands.values()}
    assert found.pop("pack") & expected == {"follow_links", "ignore_key"}  # it opens a model, and loads none
    assert {name for name, names in found.items() if names & expected} == set(COMMANDS)
    assert all(expected - names == LACKS.get(name, set()) for name, names in found.items() if name in COMMANDS)
