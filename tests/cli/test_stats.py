import json
import re
import struct
import sys
import zlib
from pathlib import Path

import pytest

from lacewing.cli import main
from lacewing.cli.picture import heat_map
from tests.checkpoints import tiny

TEXT = "The quick brown fox jumps over the lazy dog. Grüße, 你好!\n" * 3


@pytest.fixture
def lacewing(monkeypatch, capsys):
    """Runs the command in this process: (exit code, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["lacewing", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return tiny("qwen3moe", "gguf", tmp_path_factory.mktemp("mixture"))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def pixels(png):
    """Palette indices of an image as `heat_map` writes it, checksums checked."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = {}, 8
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        found[kind] = png[at + 8 : at + 8 + length]
        assert png[at + 8 + length : at + 12 + length] == struct.pack(">I", zlib.crc32(kind + found[kind]))
        at += 12 + length
    assert list(found) == [b"IHDR", b"PLTE", b"tEXt", b"IDAT", b"IEND"] and len(found[b"PLTE"]) == 3 * 256
    width, height, *form = struct.unpack(">IIBBBBB", found[b"IHDR"])
    data = zlib.decompress(found[b"IDAT"])
    assert form == [8, 3, 0, 0, 0] and len(data) == height * (width + 1)
    rows = [data[row * (width + 1) : (row + 1) * (width + 1)] for row in range(height)]
    assert all(row[0] == 0 for row in rows)
    return [row[1:] for row in rows]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_table_picture_and_trace(lacewing, mixture, text, tmp_path, backend):
    png, trace = tmp_path / "heat.png", tmp_path / "trace.jsonl"
    words = ("stats", mixture, "--text", text, "--backend", backend, "--context", 256)
    code, out, err = lacewing(*words, "--png", png, "--trace", trace)
    assert code == 0 and err in ("", "compiling kernels ...\n")  # that is said where no test before this one needed them
    assert "3 of 8 experts" in out and str(png) in out and "by seq." not in out
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows if row and row[0] in ("layer", "0", "1", "mean")] == ["layer", "0", "1", "mean"]
    code, out, _ = lacewing(*words, "--json")
    facts = json.loads(out)
    assert code == 0 and len(facts["layers"]) == 2 and facts["layers"][0]["gating"] == "softmax"
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    assert [line["tok"] for line in lines] == list(range(facts["tokens"]))
    for at, layer in enumerate(facts["layers"]):
        counts = [sum(expert in line["layers"][at] for line in lines) for expert in range(layer["experts"])]
        assert counts == layer["counts"]
    picture = pixels(png.read_bytes())
    assert len(picture) == 2 * 16 and len(picture[0]) == 8 * 16
    busiest = max(range(8), key=facts["layers"][1]["counts"].__getitem__)
    assert picture[16][16 * busiest] == max(picture[16])


def test_grouped_routers_show_their_loss(lacewing, text, tmp_path):
    words = ("stats", tiny("deepseek3", "gguf", tmp_path), "--text", text, "--backend", "reference", "--context", 64)
    code, out, _ = lacewing(*words)
    assert code == 0 and "by seq." in out and "in 2 layers" in out  # the first of three is dense
    facts = json.loads(lacewing(*words, "--json")[1])
    assert [(each["layer"], each["gating"], each["groups"]) for each in facts["layers"]] == [(1, "sigmoid", 4), (2, "sigmoid", 4)]


def test_the_page_tells_every_field(lacewing, mixture, text, tmp_path):
    page, trace = (Path(__file__).parents[2] / "docs" / "experts.md").read_text(encoding="utf-8"), tmp_path / "trace.jsonl"
    words = ("stats", mixture, "--text", text, "--backend", "reference", "--context", 64, "--trace", trace, "--json")
    facts = json.loads(lacewing(*words)[1])
    assert all(f"`{name}`" in page for name in [*facts, *facts["layers"][0], *facts["mean"]])
    (shown,) = re.findall(r"```json\n(.*?)\n```", page, re.DOTALL)
    assert list(json.loads(shown)) == list(json.loads(trace.read_text().splitlines()[0]))


def test_a_dense_model_is_an_error(lacewing, tiny_path, text):
    code, out, err = lacewing("stats", tiny_path, "--text", text, "--backend", "reference")
    assert code == 2 and out == "" and "dense model" in err and err.count("\n") == 1


def test_bad_files_are_one_line(lacewing, mixture, text, tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "empty").write_bytes(b"")
    cases = [
        (("--text", tmp_path / "nothing"), "there is no file"),
        (("--text", tmp_path), "is not a regular file"),
        (("--text", tmp_path / "bytes"), "UTF-8"),
        (("--text", tmp_path / "empty"), "empty"),
        (("--text", text, "--png", tmp_path / "no" / "such.png"), "cannot be written"),
        (("--text", text, "--trace", tmp_path), "cannot be written"),
    ]
    for words, message in cases:
        code, out, err = lacewing("stats", mixture, *words, "--backend", "reference", "--context", 64)
        assert code == 2 and out == "" and message in err and err.count("\n") == 1
    assert lacewing("stats", mixture)[0] == 2  # a text is needed


def test_nothing_that_is_read_is_written_over(lacewing, mixture, text, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(mixture)
    before, words = mixture.read_bytes(), ("stats", mixture, "--text", text, "--backend", "reference", "--context", 64)
    for more in (("--trace", text), ("--png", mixture), ("--trace", link), ("--png", tmp_path / "x", "--trace", tmp_path / "x")):
        code, out, err = lacewing(*words, *more)
        assert code == 2 and out == "" and "give another name" in err and err.count("\n") == 1
    assert mixture.read_bytes() == before and text.read_text(encoding="utf-8") == TEXT


def test_rich_table_on_a_terminal(lacewing, mixture, text, monkeypatch):
    monkeypatch.setattr("lacewing.cli.stats._terminal", lambda: True)
    code, out, _ = lacewing("stats", mixture, "--text", text, "--backend", "reference", "--context", 256)
    assert code == 0 and "mean" in out and "top 10%" in out
    assert sum(line.count("%") >= 4 for line in out.splitlines()) == 3  # no row is broken in 80 columns


def test_picture_of_rows_of_different_length():
    picture = pixels(heat_map([[0, 1, 3], [1]], "x \u4e2d"))
    assert [picture[0][16 * at] for at in range(3)] == [0, 127, 190]
    assert [picture[16][16 * at] for at in range(3)] == [127, 255, 255]
    wide = pixels(heat_map([[1.0] * 2000] * 3, ""))
    assert len(wide[0]) == 2000 and len(wide) == 3 * 16
