import contextlib

import numpy as np
import pytest
from rich.console import Console

from lacewing.backends.step import RoutedLayer
from lacewing.chat.commands.table import run_line
from lacewing.chat.services.opening import open_session
from lacewing.chat.terminal.answer import AnswerView
from lacewing.chat.terminal.below import heat_lines
from lacewing.console.heat import heat_map
from lacewing.console.output import Table
from lacewing.engine.routing import RoutingStatistics
from lacewing.errors import OptionError
from lacewing.options import LoadOptions
from tests.chat.conftest import GREEDY, say
from tests.chat.terminal.emulator import Emulator
from tests.checkpoints import tiny


@pytest.fixture
def mixture(tmp_path):
    path = tiny("qwen3moe", "gguf", tmp_path)
    session = open_session(str(path), LoadOptions("cpu", threads=1), GREEDY)
    yield session
    session.close()


def counts(chat):
    return [sum(each.counts) for each in chat.loaded.routing.statistics.layers()]


def test_experts_of_the_last_answer(mixture):
    plain = say(mixture, "Hello")
    run_line(mixture, "/undo")
    assert "from now on" in run_line(mixture, "/experts").text
    assert "no answer since" in run_line(mixture, "/experts on").text
    mixture.model.engine.forget()
    assert say(mixture, "Hello") == plain  # watching changes nothing
    reply, stats = run_line(mixture, "/experts"), mixture.stats
    ran = stats["prompt_tokens"] - stats["reused_tokens"] + stats["generated_tokens"]
    assert isinstance(reply.data, Table) and [row[0] for row in reply.data.rows] == ["0", "1", "mean"]
    assert all(len(row) == len(reply.data.headings) for row in reply.data.rows)
    (tokens,) = set(counts(mixture))
    assert ran - 1 <= tokens / 3 <= ran  # three experts a token; the last token of an answer is not always run
    first = tokens
    say(mixture, "And you?")
    (second,) = set(counts(mixture))
    ran = mixture.stats["prompt_tokens"] - mixture.stats["reused_tokens"] + mixture.stats["generated_tokens"]
    assert second / 3 <= ran and second != first + ran * 3  # of this answer alone
    run_line(mixture, "/lazy")
    say(mixture, "More")
    assert counts(mixture)
    assert run_line(mixture, "/experts off").text == "the experts are not watched"
    assert mixture.loaded.routing is None and mixture.model.step.routes() == []
    say(mixture, "Still there?")


def test_a_dense_model_of_a_chat_that_streams(paths, tmp_path):
    """What the chat was started with is for mixtures; what a command says is for this model."""
    session = open_session(str(tiny("qwen3moe", "gguf", tmp_path)), LoadOptions("cpu", residency="streamed", threads=1), GREEDY)
    with contextlib.closing(session):
        for path in paths.values():
            (tmp_path / path.name).symlink_to(path)
        fits = {row[1]: row[5] for row in run_line(session, "/model").data.rows}
        assert fits[paths["llama"].name] == "fits (eager)"
        told = run_line(session, f"/model {paths['llama']}").text
        assert "eager" in told.splitlines()[0] and "this model is dense, so nothing of it is streamed" in told
        assert say(session, "Hello")
        for line in (f"/model {paths['gemma']} --streamed", "/stream"):
            with pytest.raises(OptionError, match="only mixtures of experts"):
                run_line(session, line)
        assert session.model.weights.residency == "eager"
        assert "dense" not in run_line(session, f"/model {paths['gemma']} --lazy").text


def test_lazy_goes_back_to_streamed(mixture, tmp_path):
    """Also after the model was parked."""
    run_line(mixture, "/lazy")
    assert "lazy -> streamed" in run_line(mixture, "/stream").text
    assert "streamed -> lazy" in run_line(mixture, "/lazy").text and "lazy -> streamed" in run_line(mixture, "/lazy").text
    assert "all of them fit in RAM" in "".join(run_line(mixture, "/lazy").text + run_line(mixture, "/lazy").text)
    run_line(mixture, f"/model {tiny('llama-wide', 'gguf', tmp_path)}")
    assert "/stream streams its experts again" in run_line(mixture, "/model -").text
    assert "lazy -> streamed" in run_line(mixture, "/lazy").text
    run_line(mixture, "/lazy off")
    assert mixture.model.weights.residency == "eager"
    assert "eager -> lazy" in run_line(mixture, "/lazy").text and "lazy -> eager" in run_line(mixture, "/lazy").text


def test_verify_of_a_mixture(mixture):
    rows = {row[0]: row[-1] for row in run_line(mixture, "/verify").data.rows}
    assert rows["cpu, streamed"] == rows["cpu, eager"] == "bitwise equal"


def statistics(ids, experts):
    """Of one layer for each list of rows in `ids`."""
    found = RoutingStatistics()
    probabilities = np.full((len(ids[0]), experts), 1 / experts, np.float32)
    found.add([RoutedLayer(layer, np.array(rows, np.int32), probabilities) for layer, rows in enumerate(ids)])
    return found


def test_the_map():
    counted = statistics([[[0, 1], [0, 2], [0, 5]], [[3, 2], [3, 1], [7, 3]]], 8)
    assert counted.newest() == {0: {0, 5}, 1: {3, 7}}
    (name, cells), (other, _) = heat_map(counted, 8, 4)
    assert (name, other) == ("0", "1")
    assert "".join(cell.character for cell in cells) == "\u2588\u2592\u2592\u00b7\u00b7\u2592\u00b7\u00b7"
    assert [cell.level for cell in cells] == [4, 2, 2, 0, 0, 2, 0, 0]
    assert [at for at, cell in enumerate(cells) if cell.newest] == [0, 5]
    ((name, cells),) = heat_map(counted, 4, 1)  # layers and experts share cells
    assert name == "0-1" and len(cells) == 4 and [cell.newest for cell in cells] == [True, True, True, True]
    assert heat_map(RoutingStatistics(), 8, 4) == []
    counted.layers()
    assert counted.newest() == {0: {0, 5}, 1: {3, 7}}  # also when all have been counted


def test_the_map_below_an_answer(mixture):
    """It stands there while the answer comes, and leaves nothing behind."""
    screen = Emulator(height=30)
    console = Console(file=screen, force_terminal=True, width=80, height=30, color_system="standard")
    session, seen = mixture, []
    below = lambda: heat_lines(session, console)  # noqa: E731

    def events():
        for event in session.say("Hello"):
            yield event
            seen.append(screen.text)

    def answer():
        seen.clear()
        AnswerView(console, below=below, clock=lambda: float(len(seen))).show(events())  # a second passes with each event
        assert "experts by layer" not in screen.text
        return [text for text in seen if "experts by layer" in text]

    assert answer() == []
    run_line(session, "/experts")
    maps = answer()
    assert len(maps) > 2 and len(set(maps)) > 2  # it changes while the answer comes
    assert [line.split()[0] for line in maps[-1].splitlines()[-2:]] == ["0", "1"]
    run_line(session, "/experts quiet")
    assert answer() == []
    assert "is shown below answers" in run_line(session, "/experts live").text
    assert answer()
    run_line(session, "/experts off")
    assert answer() == []


def test_a_dense_model_has_none(start):
    with pytest.raises(OptionError, match="dense"):
        run_line(start(), "/experts")
