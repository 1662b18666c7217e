import re

from benchmarks import residency


def test_both_ratios_are_printed(tiny_path, capsys, monkeypatch):
    monkeypatch.setattr(residency, "TIMES", 2)
    residency.main([str(tiny_path), "--runs", "1"])
    shown = capsys.readouterr().out
    assert "read in pieces of 16 MiB" in shown
    for name in ("first", "later"):
        ratios = re.search(rf"^{name} conversion: .*; ([\d.]+) x that, ([\d.]+) x reading in pieces$", shown, re.MULTILINE)
        assert ratios and all(float(ratio) > 0 for ratio in ratios.groups())
