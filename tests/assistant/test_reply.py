"""Conversations answered by a small model, with what a caller can choose. On the CPU, whose bits do not depend on company."""

import dataclasses

import pytest

import lacewing
from lacewing.assistant.options import ChatOptions, make_chat_options
from lacewing.assistant.reply import Assistant
from lacewing.errors import OptionError, TemplateError
from lacewing.options import Sampling
from lacewing.text.template import ChatTemplate
from tests.assistant.speaking import Spelling

GREEDY = Sampling(temperature=0, max_tokens=24, repeat_guard=0, ignore_eos=True)
HELLO = [{"role": "user", "content": "Hello"}]
PLAIN = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
THINKS = PLAIN + "{% if add_generation_prompt %}<think>{% endif %}"
SWITCH = (
    PLAIN + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>{% endif %}{{ colour }}"
)


@pytest.fixture(scope="module")
def model(tiny_path):
    with lacewing.load(tiny_path, backend="cpu", context=512, threads=2, sequences=4) as model:
        yield model


def assistant(model, source=PLAIN):
    return Assistant(model.engine, model.tokenizer, ChatTemplate(source, "test"))


def reply(model, source=PLAIN, messages=HELLO, sampling=GREEDY, **options):
    answer = assistant(model, source).reply(messages, sampling, options=ChatOptions(**options))
    deltas = list(answer)
    return "".join(each.reasoning for each in deltas), "".join(deltas), answer


def test_a_budget_ends_thoughts_through_the_engine(model):
    free, nothing, _ = reply(model, THINKS)
    assert free and not nothing
    thoughts, text, answer = reply(model, THINKS, reasoning_budget=5)
    closing = model.tokenizer.encode("\n</think>\n\n")
    ids = [token.id for token in answer.tokens]
    assert ids[5 : 5 + len(closing)] == closing and len(ids) == 24 and text
    assert thoughts == model.tokenizer.decode(ids[:5], continuation=True).strip() and free.startswith(thoughts[:-1])
    assert reply(model, THINKS, reasoning_budget=1000)[0] == free
    assert answer.message == {"role": "assistant", "content": text, "reasoning_content": thoughts}


def test_no_effort_means_no_thoughts(model):
    """By the template where it knows how, else by the budget."""
    for source in (SWITCH, THINKS):
        thoughts, text, _ = reply(model, source, reasoning_effort="none")
        assert not thoughts and text
    assert reply(model, SWITCH, reasoning_effort="low")[0]


def test_a_grammar_behind_thoughts(model):
    def spell():
        return Spelling(model.tokenizer, "forty-two")

    thoughts, text, answer = reply(model, THINKS, reasoning_budget=4, constraint=spell)
    assert thoughts and text == "forty-two" and answer.finish_reason == "stop"
    assert reply(model, constraint=spell)[1] == "forty-two"


def test_arguments_of_the_template(model):
    prompt = assistant(model, SWITCH).prompt(HELLO, ChatOptions(template_arguments={"colour": "red", "enable_thinking": False}))
    assert model.tokenizer.decode(prompt.ids).endswith("<think></think>red")
    first = {"reasoning_effort": "high", "template_arguments": {"enable_thinking": False}}
    assert "</think>" in model.tokenizer.decode(assistant(model, SWITCH).prompt(HELLO, ChatOptions(**first)).ids)
    for given in ({"messages": []}, {"bos_token": "x"}, {"range": 1}, {"a b": 1}, [1], {str(n): n for n in range(3)}):
        with pytest.raises(OptionError, match=r"`template_arguments`|template variable"):
            ChatOptions(template_arguments=given)


def test_an_answer_that_goes_on(model):
    whole = reply(model)[1]
    begun = [*HELLO, {"role": "assistant", "content": whole[:6]}]
    prompt = assistant(model).prompt(begun, ChatOptions(continue_final=True))
    assert model.tokenizer.decode(prompt.ids).endswith(f"assistant: {whole[:6]}")
    _, text, answer = reply(model, messages=begun, continue_final=True)
    assert answer.message["content"] == whole[:6] + text
    for messages in (HELLO, [{"role": "assistant", "content": "x"}]):
        with pytest.raises(OptionError, match="last message"):
            reply(model, messages=messages, continue_final=True)


def test_thoughts_that_go_on(model):
    begun = [*HELLO, {"role": "assistant", "content": "", "reasoning_content": "Let me see"}]
    for source in (PLAIN, THINKS):
        prompt = assistant(model, source).prompt(begun, ChatOptions(continue_final=True))
        text = model.tokenizer.decode(prompt.ids)
        assert text.endswith("Let me see") and text.count("<think>") == 1
        thoughts, _, answer = reply(model, source, begun, continue_final=True)
        assert thoughts and answer.message["reasoning_content"] == "Let me see" + thoughts
    ended = [*HELLO, {"role": "assistant", "content": "So", "reasoning_content": "hm"}]
    assert not reply(model, THINKS, ended, continue_final=True)[0]


def test_several_answers_of_one_prompt(model):
    """The prompt is read once; each seed gives what it gives alone."""
    messages = [{"role": "user", "content": "Tell me something about the weather in the north. " * 12}]
    prompt = assistant(model).prompt(messages)
    assert len(prompt.ids) > 256
    hot = dataclasses.replace(GREEDY, temperature=1.5, seed=7, max_tokens=8)
    expected = ["".join(prompt.answer(model.engine, dataclasses.replace(hot, seed=seed))) for seed in (7, 8, 9)]
    model.engine.forget()
    answers = prompt.answers(model.engine, 3, hot)
    assert ["".join(answer) for answer in answers] == expected and len(set(expected)) == 3
    whole = len(prompt.ids) - 1  # the last id always runs
    assert [answer.stats.reused_tokens for answer in answers] == [0, whole, whole]


def test_the_others_go_on_where_the_first_answer_is_cancelled(model):
    prompt = assistant(model).prompt(HELLO)
    expected = "".join(prompt.answer(model.engine, GREEDY))
    model.engine.forget()
    first, second = prompt.answers(model.engine, 2, GREEDY)
    first.close()
    assert "".join(second) == expected


def test_tokens_that_end_an_answer_can_be_ignored(model):
    prompt = assistant(model).prompt(HELLO)
    whole = [token.id for token in reply(model)[2].tokens]
    ends = dataclasses.replace(prompt, stop_ids=frozenset(whole[3:4]))
    few = dataclasses.replace(GREEDY, ignore_eos=False)
    answer = ends.answer(model.engine, few)
    assert len(list(answer)) <= 3 and answer.finish_reason == "stop" and len(answer.tokens) == whole.index(whole[3])
    answer = ends.answer(model.engine, GREEDY)
    list(answer)
    assert [token.id for token in answer.tokens] == whole and answer.finish_reason == "length"


def test_options_from_keywords():
    chosen, sampling = make_chat_options({"reasoning_effort": "low", "temperature": 0, "continue_final": True})
    assert (chosen.reasoning_effort, chosen.continue_final, sampling.temperature) == ("low", True, 0)
    for wrong in ({"reasoning_effort": "hard"}, {"reasoning_budget": -1}, {"reasoning_budget": 1.5}, {"continue_final": "yes"}):
        (name,) = wrong
        with pytest.raises(OptionError, match=f"`{name}`"):
            make_chat_options(wrong)
    with pytest.raises(OptionError, match="colour"):
        make_chat_options({"colour": 1})


def test_an_empty_conversation(model):
    with pytest.raises(TemplateError, match="at least one message"):
        assistant(model).prompt([])
