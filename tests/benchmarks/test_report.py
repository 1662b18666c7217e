"""The figures are held against the goals rightly."""

import numpy as np
import pytest

from benchmarks import compare, divergence, report


def test_speed_counts_the_ratio_of_medians():
    ours, peer = [{"prompt": p, "generate": 10.0} for p in (10, 26, 90)], [{"prompt": 20.0, "generate": 11.0}] * 3
    generate, prompt = report.speed_rows("gemma3-270m", ours, peer)
    assert (prompt.shown, prompt.reached) == ("1.30 x", True) and (generate.shown, generate.reached) == ("0.91 x", False)
    assert report.speed_rows("smollm2", ours, peer)[0].goal == "1.0 x, aim 1.4 x"
    assert report.speed_rows("qwen3moe-tiny", ours, peer)[0].goal == "1.0 x, aim 1.3 x"


def test_bandwidth_share():
    row = report.bandwidth_row("llama-1b", [{"generate": 25.0}], 600_000_000, [16e9])
    assert row.shown == "93.8%" and row.reached


@pytest.mark.parametrize(
    ("residency", "nbytes", "reached"), [("eager", 1005e6, True), ("eager", 1015e6, False), ("lazy", 301e6, False)]
)
def test_memory(residency, nbytes, reached):
    assert report.memory_row("llama-1b", residency, int(nbytes), 690_000_000).reached is reached


def test_divergence_of_equal_and_of_known_distributions():
    rows = np.random.Generator(np.random.PCG64(1)).normal(size=(40, 7)).astype(np.float32)
    assert divergence.compare(rows, rows + 3) == {
        "mean": pytest.approx(0, abs=1e-6),
        "max": pytest.approx(0, abs=1e-6),
        "same_favourite": 1,
    }
    two = divergence.compare(np.log([[0.75, 0.25]]), np.log([[0.5, 0.5]]))
    assert two["mean"] == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))


def test_backends_beside_exact_arithmetic(tiny_path):
    lines = list(divergence.from_exact([str(tiny_path)], ["reference", "cpu"], 12, 1))
    assert f"{tiny_path}, reference, 12 tokens: in one run 0.000000" in lines[0]
    assert len(lines) == 2 and "token by token" in lines[1] and "0.000000 " not in lines[1]


def test_the_text_is_long_enough(smollm2_path):
    from lacewing import load_tokenizer

    assert len(load_tokenizer(smollm2_path).encode_prompt(divergence.TEXT.read_text())) >= 512


def test_flags(tmp_path, capsys):
    peer = tmp_path / "peer"
    peer.mkdir()
    (peer / "libllama.so").touch()
    options = compare.parse(["--peer", str(peer), "--models", "smollm2,llama-1b"])
    assert options.models == ["smollm2", "llama-1b"] and (options.threads, options.prompt, options.generate) == (2, 128, 32)
    assert compare.parse(["--peer", str(peer), "--peer-other", str(peer)]).peer_other == peer and options.peer_other is None
    for wrong in (
        ["--peer", str(tmp_path)],
        ["--peer", str(peer), "--peer-other", str(tmp_path)],
        ["--peer", str(peer), "--models", "gpt"],
        [],
    ):
        with pytest.raises(SystemExit):
            compare.parse(wrong)
    assert "is not measured" in capsys.readouterr().err


def test_the_peer_beside_its_other_build():
    one = {"mean": 0.003, "same_favourite": 0.97}
    found = {"tokens": 8, "peer_to_ours": one, "peer_to_exact": one, "exact_to_ours": one}
    assert len(report.divergence_rows("m", found)) == 3
    row = report.divergence_rows("m", found | {"peer_to_other": one | {"mean": 0.004}})[3]
    assert (row.peer, row.shown, row.reached) == ("0.00400", "same favourite 97.0%", None)


def test_the_table_is_printed(capsys):
    report.show({"machine": "a [bracket]"}, [report.first_token_row([0.7, 0.9, 0.8]), report.first_run_row("smollm2", 50)])
    shown = capsys.readouterr().out
    assert "a [bracket]" in shown and "0.80 (0.70 to 0.90)" in shown and "reached" in shown and "missed" in shown


def test_the_readme_takes_the_table(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    table = report.markdown({"date": "today"}, [report.first_token_row([0.7])])
    for _ in range(2):
        report.write_readme(page, table)
        lines = page.read_text().splitlines()
        assert lines[:3] == ["before", report.BEGIN, "- date: today"] and lines[-2:] == [report.END, "after"]
        assert "| smollm2, command to first token, s | 0.70 (0.70 to 0.70) |  | 0.70 s | at most 1.5 s, aim 0.8 s |" in lines
    page.write_text("nothing")
    with pytest.raises(ValueError, match="lacks the marks"):
        report.write_readme(page, table)


def test_rows_of_several_sequences():
    rows = report.sequence_rows("tiny", {1: [2.0, 4.0, 3.0], 8: [20.0]}, {1: [1.5], 8: [10.0]}, 64)
    assert [(row.name, row.shown, row.goal, row.reached) for row in rows] == [
        ("tiny, 1 sequence, tokens/s", "2.00 x", "", None),
        ("tiny, 8 sequences, tokens/s", "2.00 x", "2.5 x", False),
    ]
    long = report.sequence_rows("tiny", {8: [20.0]}, {8: [10.0]}, 4096)
    assert (long[0].goal, long[0].reached) == ("2.0 x", True)
