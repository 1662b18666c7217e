import pytest

from lacewing.assistant.options import RESERVED
from lacewing.text.effort import EFFORTS, EffortVariables
from lacewing.text.filters import functions
from lacewing.text.template import ChatTemplate


def of(source, effort):
    return EffortVariables(ChatTemplate(source, "test")).of(effort)


@pytest.mark.parametrize(
    ("source", "levels"),
    [
        ("Reasoning: {{ reasoning_effort | default('medium') }}", "low low low medium high"),  # gpt-oss
        ("{% if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif %}", "low low low medium high"),
        ("{% if reasoning_effort not in ['none', 'high'] %}{{ raise_exception('x') }}{% endif %}", "none high high high high"),
        ("{% if reasoning_effort == 'max' or reasoning_effort == 'high' %}x{% endif %}", "high high high high high"),
        (
            "{% if 'low' == reasoning_effort %}a{% elif reasoning_effort | lower == 'medium' %}b{% endif %}",
            "low low low medium medium",
        ),
        ("{% if reasoning_effort == 'high' %}x{% endif %}", "low low low medium high"),
        ("{{ messages }}", "low low low medium high"),
    ],
)
def test_levels_are_those_that_the_template_knows(source, levels):
    assert [of(source, effort)["reasoning_effort"] for effort in EFFORTS] == levels.split()


def test_switches():
    for effort in EFFORTS:
        given = of("{% if enable_thinking %}x{% endif %}", effort)
        assert given["enable_thinking"] is given["thinking"] is (effort != "none") and "thinking_budget" not in given
    assert of("{% if thinking_budget == 0 %}x{% endif %}", "none")["thinking_budget"] == 0


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% if enable_thinking is defined and not enable_thinking %}x{% endif %}", True),
        ("{%- set thinking = thinking | default(false) %}{{ thinking }}", True),
        ("{{ messages[0].thinking }}", False),
        ("{% if reasoning_effort == 'none' %}{% endif %}", True),
        ("{{ reasoning_effort }}", False),
        ("{% generation %}{% if enable_thinking %}x{% endif %}{% endgeneration %}", True),
        ("{% if broken", False),
    ],
)
def test_whether_thoughts_can_be_switched_off(source, expected):
    assert EffortVariables(ChatTemplate(source, "test")).can_be_off is expected


def test_reserved_names_are_all_that_templates_are_given():
    assert {*functions(lambda: None), "messages", "tools", "add_generation_prompt", "bos_token", "eos_token"} == RESERVED
