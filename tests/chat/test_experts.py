import pytest

from lacewing.chat.command import Table, run_line
from lacewing.chat.session import open_session
from lacewing.errors import OptionError
from lacewing.options import LoadOptions
from tests.chat.conftest import GREEDY, say
from tests.checkpoints import tiny


@pytest.fixture
def mixture(tmp_path):
    path = tiny("qwen3moe", "gguf", tmp_path)
    session = open_session(str(path), LoadOptions("cpu", threads=1), GREEDY)
    yield session
    session.close()


def counts(chat):
    return [sum(each.counts) for each in chat.model.engine.step.statistics.layers()]


def test_experts_of_the_last_answer(mixture):
    plain = say(mixture, "Hello")
    run_line(mixture, "/undo")
    assert "from now on" in run_line(mixture, "/experts").text
    assert "nothing has been answered" in run_line(mixture, "/experts on").text
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
    assert mixture.model.engine.step is mixture.model.step and mixture.model.step.routes() == []
    say(mixture, "Still there?")


def test_a_dense_model_has_none(start):
    with pytest.raises(OptionError, match="dense"):
        run_line(start(), "/experts")
