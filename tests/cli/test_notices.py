"""What a person is told once: run and chat on standard error, info on its page, as JSON in a list."""

import io
import json
import sys

import pytest

from lacewing.cli import main
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
