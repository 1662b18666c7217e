"""`info` and `stats` on a tiny checkpoint of every family of mixtures of experts."""

import json
import sys

import numpy as np
import pytest

from lacewing.cli import main
from lacewing.engine.routing import MEANS
from tests import mixtures
from tests.checkpoints import config_of, shapes_of, tiny

FORMS = [(name, form) for name in mixtures.CASES for form in ("gguf", "huggingface")]
FORMS = [(name, form) for name, form in FORMS if form != "gguf" or name not in mixtures.ONLY_HUGGINGFACE]


@pytest.fixture
def lacewing(monkeypatch, capsys):
    """Runs a command in this process: its JSON, or its text."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["lacewing", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert not ended.value.code and captured.err == ""
        return json.loads(captured.out) if "--json" in words else captured.out

    return call


def expected_sizes(name):
    """Parameters in all and those of the idle experts, from the shapes alone."""
    config, total, idle = config_of(name), 0, 0
    experts, active = mixtures.experts_of(config), config["num_experts_per_tok"]
    for key, shape in shapes_of(config).items():
        count = int(np.prod(shape))
        total += count
        if "experts." in key and "shared" not in key:
            idle += count - count * active // experts
    return total, idle


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_info(lacewing, name, form, tmp_path):
    facts = lacewing("info", tiny(name, form, tmp_path), "--json")
    total, idle = expected_sizes(name)
    uncounted = 320 * 64 * len(facts["uncounted"])
    assert facts["parameters"] == total and facts["active_parameters"] == total - idle - uncounted
    plan = {row["name"]: row["bytes"] for row in facts["plan"]["rows"]}
    assert plan["weights"] == sum(one["bytes"] for one in facts["quants"].values())
    assert plan["experts"] - plan["active experts"] == 4 * idle
    assert plan["weights"] - plan["active weights"] == 4 * (idle + 319 * 64)  # of the embedding one row is read
    assert (plan["resident"], plan["streamed"]) == (plan["weights"], 0)


def test_info_where_it_does_not_fit(lacewing, tmp_path):
    facts = lacewing("info", tiny("deepseek3", "gguf", tmp_path), "--memory", "4096", "--json")
    assert facts["plan"]["residency"] == "none" and "does not fit" in facts["plan"]["reasons"][0]


def test_the_page_says_how_active_parameters_are_counted(lacewing, tmp_path):
    pages = {name: lacewing("info", tiny(name, "gguf", tmp_path)) for name in ("llama4", "deepseek3", "glm4moe")}
    lines = {name: next(line for line in page.splitlines() if line.startswith("parameters")) for name, page in pages.items()}
    assert lines["llama4"].endswith("M active")
    assert lines["deepseek3"].endswith("M active, not counting the embedding")
    assert lines["glm4moe"].endswith("M active, not counting the embedding and the output")
    rows = [line.split() for line in pages["glm4moe"].splitlines()]
    deciding = {row[-1] for row in rows if row[-1] in ("memory", "speed")}
    assert deciding == {"memory", "speed"}


@pytest.mark.parametrize("name", ["mixtral", "qwen3moe", "olmoe", "deepseek2-lite", "deepseek2", "deepseek3", "mistral4", "glm4moe",
                                  "gpt-oss", "llama4", "llama4-128"])  # fmt: skip
def test_stats(lacewing, name, tmp_path):
    text, trace = tmp_path / "text.txt", tmp_path / "trace.jsonl"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 2)
    path, config = tiny(name, "gguf", tmp_path), config_of(name)
    facts = lacewing("stats", path, "--text", text, "--trace", trace, "--backend", "reference", "--context", "64", "--json")
    layers = [layer for layer in range(config["num_hidden_layers"]) if mixtures.is_mixture(config, layer)]
    assert [each["layer"] for each in facts["layers"]] == layers
    for each in facts["layers"]:
        active = config["num_experts_per_tok"]
        assert (each["experts"], each["active"]) == (mixtures.experts_of(config), active)
        assert sum(each["counts"]) == active * facts["tokens"] and all(np.isfinite(each[key]) for key in MEANS)
    check_trace(trace.read_text().splitlines(), facts["tokens"], len(layers), config["num_experts_per_tok"])


def check_trace(lines, tokens, layers, active):
    found = [json.loads(line) for line in lines]
    assert [list(line) for line in found] == [["tok", "layers"]] * tokens
    assert [line["tok"] for line in found] == list(range(tokens))
    for line in found:
        assert len(line["layers"]) == layers
        assert all(len(set(ids)) == len(ids) == active and all(type(one) is int for one in ids) for ids in line["layers"])
