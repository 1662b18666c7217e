import io
import sys

import pytest

from lacewing.cli.progress import Reporter


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream, expected", [(io.StringIO(), "working ...\n"), (Terminal(), "working")])
def test_long_work_is_shown_once(monkeypatch, stream, expected):
    monkeypatch.setattr(sys, "stderr", stream)
    with Reporter(patience=0) as report:
        for done in range(5):
            report("working", done * 10**6, 4 * 10**6)
    assert stream.getvalue().count("working ...") <= 1 and expected in stream.getvalue()
    if stream.isatty():
        assert "MiB" in stream.getvalue()


def test_short_work_is_not_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Reporter() as report:
        report("working", 0, 2)
        report("working", 2, 2)
    assert sys.stderr.getvalue() == ""
