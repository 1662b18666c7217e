"""Filters and functions of templates: what Jinja's own give, and what they cost at most."""

from __future__ import annotations

import re
import time
import tracemalloc
from typing import Any

import jinja2.filters
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.ext import LoopControlExtension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lacewing.errors import TemplateError
from lacewing.text.filters import filters, functions
from lacewing.text.template import MAX_OUTPUT, ChatTemplate
from tests.text import vocabularies as v

MESSAGES = [
    {"role": "user", "content": 'Hello <b>big</b> & small <|im_end|> world, it\'s a "test"\nof lines', "n": 3},
    {"role": "assistant", "content": "Yes", "n": 1, "deep": {"b": [1, 2.5, None, True], "a": ["x", "ü"]}},
    {"role": "user", "content": "more", "n": 2},
]
JINJA = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension])
MORE = {"M": MESSAGES, "C": MESSAGES[0]["content"], "D": MESSAGES[1]["deep"]}
# One line or more for each filter; all give what Jinja gives.
FILTERS = r"""
{{ -3 | abs }}{{ M[0] | attr('role') }}{{ M | batch(2, 'x') | list | length }}{{ C | capitalize }}
{{ C | center(120) }}|{{ 'a' | center(5) }}|{{ 'ab' | center }}
{{ M | count }}{{ M[0].none | default('x') }}{{ '' | d('y', true) }}
{{ D | dictsort }}{{ M[0] | dictsort(by='value', reverse=true) | map('first') | list if false }}
{{ '<a href="x">' | e }}{{ "it's" | escape }}{{ 'x' | forceescape }}
{{ 1 | filesizeformat }}{{ 13000 | filesizeformat }}{{ 13000 | filesizeformat(true) }}{{ '4096000' | filesizeformat }}
{{ M | first | length }}{{ '1.5' | float }}{{ '%s-%05.1f' | format(C, 2) }}{{ '%(a)s' | format(a=1) }}
{% for g in M | groupby('role') %}{{ g.grouper }}:{{ g.list | length }}:{{ g[0] }}:{{ g | length }};{% endfor %}
{% for role, each in M | groupby('role') %}{{ role }}={{ each | map(attribute='content') | join('+') }};{% endfor %}
{{ M | groupby('role') | map(attribute='grouper') | list }}{{ M | groupby('x', default='none') | length }}
{{ C | indent }}{{ C | indent(2, true) }}{{ C | indent('> ', first=true) }}
{{ '12' | int }}{{ M[0] | items | list }}{{ ['a', 1, none] | join(', ') }}{{ M | join('|', attribute='role') }}
{{ [1, 2] | last }}{{ C | length }}{{ 'abc' | list }}{{ C | lower }}{{ M | map(attribute='n') | max }}
{{ M | map('length') | list }}{{ [3, 1] | min }}
{{ M | pprint }}
{{ D | pprint }}{{ ('a ' * 60) | pprint }}{{ range(40) | list | pprint }}{{ (1,) | pprint }}{{ {'b': 1, 'a': 2} | pprint }}
{{ [1, 0] | reject | list }}{{ M | rejectattr('n', 'gt', 1) | map(attribute='n') | list }}{{ C | replace('b', 'X') }}
{{ [1, 2] | reverse | list }}{{ 'ab' | reverse }}{{ 1.25 | round(1) }}{{ 1.25 | round(1, 'floor') }}
{{ [1, 0] | select | list }}{{ M | selectattr('role', 'eq', 'user') | map(attribute='n') | list }}
{{ [1, 2, 3] | slice(2) | list }}{{ M | sort(attribute='n') | map(attribute='n') | list }}{{ 5 | string }}
{{ C | striptags }}{{ '<p>a  &amp; b</p><!-- c -->d' | striptags }}
{{ [1, 2] | sum }}{{ M | sum('n') }}{{ 'ab cd' | title }}{{ ' x ' | trim }}{{ C | truncate(9) }}
{{ C | truncate(9, true, '#') }}
{{ [1, 1] | unique | list }}{{ C | upper }}
{{ C | urlencode }}{{ 'a/b ü?' | urlencode }}{{ {'q': 'a b', 'ü': 1} | urlencode }}
{{ [('a', 'b/c'), (1, none)] | urlencode }}{{ 5 | urlencode }}
{{ C | wordcount }}{{ C | wordwrap(12) }}{{ 'abcdefghij' | wordwrap(4) }}{{ 'abcdefghij kl' | wordwrap(4, false) }}
{{ 'aa-bb cc' | wordwrap(4, true, '|') }}{{ 'aa-bb cc' | wordwrap(4, break_on_hyphens=false) }}{{ 'a\n\nb' | wordwrap }}
{{ '' | wordwrap }}
<p{{ {'class': 'a b', 'id': none, 'x': "it's <", 'n': 5} | xmlattr }}>{{ {'a': 1} | xmlattr(false) }}{{ {} | xmlattr }}
{{ 'x' | safe }}{{ [1, 'a', ('b',), {'c': none}, 1.5, true] }}{{ (1,) }}{{ () }}{{ {} }}{{ range(2, 5) }}{{ [range(3)] }}
{{ D.items() }}{{ [D.keys()] }}{{ (D.values(),) }}{{ [none_such] }}{{ ['it"s', "it's"] }}{{ '%r' % ([1],) if false }}
{{ '{} {!r} {:>5} {0[0]}'.format('a', 'b', 'c') if false }}{{ '{!r}{:>3}{x}'.format('b', 7, x=[1, 'a']) }}
{{ '%r %s' % ('a', [1, 'b']) }}
"""
FUNCTIONS = """
{% set c = cycler('odd', messages[0].content) %}{% for m in messages %}{{ c.next() }}{{ c.current }}{% endfor %}
{% set c = cycler('odd', 'even') %}{{ c.next() }}{{ c.reset() }}{{ c.next() }}
{% set j = joiner('; ') %}{% for m in messages %}{{ j() }}{{ m.role }}{% endfor %}{% set k = joiner() %}{{ k() }}{{ k() }}
{% set j = joiner(messages[0].content) %}{{ j() }}{{ j() }}{{ loop is defined }}
{{ range(3) | list }}{{ dict(a=1) }}{% set n = namespace(x=1) %}{% set n.x = 2 %}{{ n.x }}
{% for m in messages %}{{ loop.cycle('a', m.content) }}{{ loop.changed(m.role) }}{% endfor %}
"""
LINES = [line for line in (FILTERS + FUNCTIONS).strip().split("\n")]


def rendered(source: str, **options: Any) -> str:
    return ChatTemplate(source, "test", **options).render(MESSAGES, **MORE)


@pytest.mark.parametrize("source", LINES)
def test_filters_and_functions_give_what_jinjas_do(source: str):
    assert rendered(source) == JINJA.from_string(source).render(messages=MESSAGES, **MORE)


def test_every_filter_and_function_has_a_line():
    names = {name for name in filters() if not name.startswith("_")} - {"from_json", "tojson"}
    assert names == set(jinja2.filters.FILTERS) - {"random", "urlize", "tojson"}
    assert all(re.search(rf"\| {name}\b", FILTERS) for name in names)
    assert all(f"{name}(" in FUNCTIONS for name in set(functions(lambda: None)) - {"raise_exception", "strftime_now"})  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("source", LINES)
def test_what_a_user_wrote_stays_text(source: str):
    tokenizer = v.tokenizer(v.byte_level())
    assert not any(map(tokenizer.is_control, ChatTemplate(source, "test").encode(MESSAGES, tokenizer, **MORE)))


THINGS = """
    range  dict  namespace  namespace(a=range)  cycler  joiner  cycler(1)  joiner()  raise_exception  strftime_now  ''.join
    messages.index  messages[0].items  self  loop  m  messages | map('upper')  messages | select  messages | batch(1)
    messages | groupby('role') | map(attribute='list')  loop.cycle  none_such  cycler(1).next  namespace(a=1)  [].count
    caller  m.name  range(3)  [range, dict]  {'a': range}  (range,)  {range: 1}  {'a': range}.items()  dict(a=range).values()
"""
WAYS = """
    {{ X }}  {{ [X] }}  {{ (X,) }}  {{ {'a': X} }}  {{ {'a': [X]}.items() }}  {{ X ~ '' }}  {{ [X] | join }}
    {{ [[X]] | join }}  {{ X | string }}  {{ [X] | string }}  {{ '%s' % X }}  {{ '%s' % [X] }}  {{ '%r' % (X,) }}
    {{ '%(a)s' % {'a': X} }}  {{ '%s' | format(X) }}  {{ '%r' | format([X]) }}  {{ '{}'.format(X) }}  {{ '{!r}'.format([X]) }}
    {{ '{a[0]}'.format(a=[X]) }}  {{ '{a}'.format_map({'a': X}) }}  {{ X | upper }}  {{ [X] | replace('a', 'b') }}
    {{ 'a' | replace('a', X) }}  {{ X | pprint }}  {{ [X] | pprint }}  {{ {'a': {'b': (X,)}} | pprint }}  {{ X | urlencode }}
    {{ {'a': X} | urlencode }}  {{ [(X, [X])] | urlencode }}  {{ {'a': X} | xmlattr }}  {{ {'a': [X]} | xmlattr }}
    {{ X | e }}  {{ [X] | e }}  {{ X | striptags }}  {{ [X] | wordwrap(9) }}  {{ X | center(99) }}  {{ [X] | indent }}
    {{ [X] | trim }}  {{ [X] | title }}  {{ [X] | truncate(999) }}  {{ X | tojson }}  {{ X | default('x') }}
    {{ [X] | first }}  {{ [[X]] | sum(start=[]) }}  {{ [].index(X) }}  {{ 'a'.replace(X, 'b') }}  {{ X + 1 }}  {{ {}[X] }}
    {{ X.nothing.more }}  {{ X() }}  {{ X(1, 2, 3, 4, 5) }}  {{ raise_exception(X) }}  {{ raise_exception([X]) }}
    {{ strftime_now(X) }}  {{ [X] | map('string') | list }}  {{ [X, X] | sort }}  {{ 5 | round(X) }}  {{ X | filesizeformat }}
    {% set a %}{{ [X] }}{% endset %}{{ a }}  {% for a in X %}{{ [a] }}{% endfor %}  {{ X | safe }}  {{ [X] | attr('x') }}
    {{ [X] | batch(1) | list }}  {{ [X] * 2 }}  {{ [X] + [X] }}  {{ X | int }}{{ X | float }}  {{ ', '.join([X]) }}
    {{ X == X }}
"""


@pytest.mark.parametrize("thing", re.split(r"\s\s+", THINGS.strip()))
def test_no_object_tells_an_address(thing: str):
    """Nor names of our own parts, unless in an error."""
    macro = "{% macro m() %}{{ caller and [caller] }}{% endmacro %}{% call m() %}{% endcall %}"
    for way in re.split(r"\s\s+", WAYS.strip()):
        source = f"{macro}{{% for x in [1] %}}{way.replace('X', f'({thing})')}{{% endfor %}}"
        try:
            text, internal = rendered(source), r"object at|lacewing\.|jinja2\.| of \w+ object"
        except TemplateError as error:
            text, internal = str(error), "object at"
        assert not re.search(rf"0x[0-9A-Fa-f]{{6}}|{internal}", text.replace("%20", " ")), (source, text)


# What each would take without a limit: minutes, or gigabytes.
HEAVY = r"""
{{ 'x' | center(1000000000) }}
{{ [1] | center(100001) }}
{{ 'x' | wordwrap(1, wrapstring='y' * 90000) }}{{ ('x' * 90000) | wordwrap(1, true, 'y' * 90000) }}
{{ (' ' * 90000 ~ 'x') | wordwrap(1) }}{{ (' ' * 90000) | wordwrap(1) }}
{{ ('x' * 99999 ~ 'y' * 99999) | wordwrap(79) }}
{% for i in range(9999) %}{{ ('x ' * 50000) | wordwrap(2) | length }}{% endfor %}
{% for i in range(9999) %}{{ ('<a>' * 9000) | striptags }}{% endfor %}
{{ ('<a>' * 99999) | striptags | length }}{{ ('<!---->' * 99999) | striptags ~ raise_exception() }}
{% for i in range(99999) %}{{ ('ü' * 90000) | urlencode | length }}{% endfor %}
{{ ('ü' * 99999) | urlencode | urlencode | urlencode }}
{{ range(99999) | list | pprint }}
{% set n = namespace(s=1) %}{% for i in range(16) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s | pprint }}
{% set n = namespace(s=range(9999)|list) %}{% for i in range(900) %}{% set n.s = [n.s] %}{% endfor %}{{ n.s | pprint }}
{% set n = namespace(s=1) %}{% for i in range(99999) %}{% set n.s = {'a': n.s} %}{% endfor %}{{ n.s | pprint }}
{% set n = namespace(s=1) %}{% for i in range(60) %}{% set n.s = namespace(a=n.s, b=n.s) %}{% endfor %}{{ [].index(n.s) }}
{% for i in range(99999) %}{{ (range(9999) | list) | pprint | length }}{% endfor %}
{{ {'a': "'" * 99999 * 999} | xmlattr }}
{% for i in range(99999) %}{{ {'a': "'" * 99999} | xmlattr | length }}{% endfor %}
{% set c = cycler('a' * 99999) %}{% for i in range(99999) %}{{ c.next() }}{% endfor %}
{% set j = joiner('a' * 99999) %}{% for i in range(99999) %}{{ j() }}{% endfor %}
{{ messages | groupby('role') | list * 100000000 }}
{% for i in range(99999) %}{% set g = range(9999) | groupby('x') | list %}{% endfor %}
{{ '%999999s' | format([1]) }}{{ '%*s' | format(9999999, 1) }}{{ '{:999999}'.format([1]) }}
{{ (2 ** 1000) | filesizeformat * 99999999 }}
"""


@pytest.mark.parametrize("source", HEAVY.strip().split("\n"))
def test_heavy_uses_are_refused_in_time(source: str):
    start = time.monotonic()
    with pytest.raises(TemplateError):
        ChatTemplate(source, "test", seconds=0.2).render([{"role": "user", "content": "Hello"}])
    assert time.monotonic() - start < 10  # 0.4 s alone on a machine


VALUES = st.sampled_from(
    r"""messages|messages[0].content|'ü<a>&-'|'a b-c\n'|9|99999|100001|0|-1|none|none_such|range(99999)|[1, 'x']
    {'a': 1}|range|n.s|c|j|loop|1.5|''|' '""".replace("\n    ", "|").split("|")
)
NAMES = st.sampled_from(sorted(name for name in filters() if not name.startswith("_")))
METHODS = st.sampled_from(
    [
        "upper",
        "split",
        "join",
        "center",
        "ljust",
        "zfill",
        "replace",
        "format",
        "format_map",
        "items",
        "keys",
        "values",
        "index",
        "count",
        "next",
        "current",
        "expandtabs",
        "strip",
        "title",
        "partition",
        "splitlines",
        "get",
        "copy",
        "rsplit",
        "removeprefix",
    ]
)
ARGUMENTS = st.lists(VALUES, max_size=3).map(", ".join)
STEPS = (
    st.builds("{} | {}({})".format, VALUES, NAMES, ARGUMENTS)
    | st.builds("({}) * {}".format, VALUES, VALUES)
    | st.builds("{} ~ {} ~ n.s".format, VALUES, VALUES)
    | st.builds("[n.s, {}, n.s]".format, VALUES)
    | st.builds("dict(a=n.s, b={})".format, VALUES)
    | st.builds("{} + {}".format, VALUES, VALUES)
    | st.builds("({}).{}({})".format, VALUES, METHODS, ARGUMENTS)
    | st.builds("(n.s ~ '') | {}({})".format, NAMES, ARGUMENTS)
    | st.builds("n.s | list | {}({})".format, NAMES, ARGUMENTS)
    | st.builds("'%{}s' % {}".format, st.integers(0, 10**6), VALUES)
    | st.builds("cycler({}).next()".format, VALUES)
)
BODY = st.lists(STEPS, min_size=1, max_size=4).map(
    lambda steps: "".join(f"{{% set n.s = {step} %}}{{{{ n.s }}}}" for step in steps)
)
START = "{% set n = namespace(s='a ') %}{% set c = cycler(1, 'b') %}{% set j = joiner() %}"
PROGRAMS = st.tuples(st.sampled_from((1, 2, 60, 99999)), BODY).map(
    lambda parts: f"{START}{{% for i in range({parts[0]}) %}}{parts[1]}{{% endfor %}}"
)


@given(PROGRAMS)
@settings(max_examples=40, deadline=None)
def test_no_template_passes_a_limit(source: str):
    within_limits(source)


@pytest.mark.slow
@given(PROGRAMS)
@settings(max_examples=1500, deadline=None)
def test_no_template_of_very_many_passes_a_limit(source: str):
    within_limits(source)


def within_limits(source: str) -> None:
    """It renders, or is refused, in a bounded time and memory, whatever it puts together."""
    start = time.monotonic()
    tracemalloc.start()
    try:
        assert len(ChatTemplate(source, "test", seconds=0.1).render(MESSAGES)) <= MAX_OUTPUT
    except TemplateError as error:
        assert "0x" not in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.monotonic() - start < 15, source  # measured memory makes it several times as slow
    assert peak < 768 << 20, source
