"""What a hostile template can reach (nothing) and how long it can take (a second)."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from typing import Any

import jinja2.debug  # noqa: F401  which errors of templates need
import pytest

from lacewing.errors import TemplateError
from lacewing.text.template import ChatTemplate

MESSAGES = [{"role": "user", "content": "Hello"}]
REACHING = """
{{ ''.__class__.__mro__[1].__subclasses__() }}
{{ cycler.__init__.__globals__.os.popen('id').read() }}
{{ self.__init__.__globals__ }}
{{ lipsum.__globals__['os'].system('id') }}
{{ joiner.__init__.__globals__ }}
{{ namespace.__init__.__globals__ }}
{{ raise_exception.__globals__['os'].system('id') }}
{{ strftime_now.__closure__[0].cell_contents }}
{{ range.__self__.__import__('os') }}
{{ dict.__bases__[0].__subclasses__() }}
{{ dict.mro() }}
{{ (''|attr('__class__')).mro() }}
{{ messages|map(attribute='__class__')|map(attribute='__mro__')|first }}
{{ (messages|map('attr', '__class__')|first).mro() }}
{{ ''['__class__']['__mro__'] }}
{{ '{0.__class__.__init__.__globals__}'.format(messages).x.y }}
{{ ('{0.__cla' ~ 'ss__}').format(messages).x.y }}
{{ ('x'|attr('for' ~ 'mat_map'))({'a': messages}).x.y }}
{{ messages.append(1) }}
{{ messages[0].update({}) }}
{{ messages.__class__.append(messages, 1) }}
{{ (1).to_bytes(9, 'big') }}
{{ (1).__add__(1) }}
{{ 'x'.encode() }}
{{ 'x'.translate({120: 'y'}) }}
{{ {}.fromkeys([1]) }}
{{ self._TemplateReference__context.environment }}
{% for i in [1] %}{{ loop._iterator.gi_frame.f_globals }}{% endfor %}
{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}
{% macro m() %}{{ caller.__globals__.x }}{% endmacro %}{% call m() %}{% endcall %}
{% block b %}{% endblock %}{{ self.b.__func__.__globals__ }}
{{ ''.join.__self__.__class__.x }}
{{ get_flashed_messages.__globals__ }}
{{ url_for.__globals__ }}
{{ request.application.__globals__ }}
{{ config.items() }}
{{ environment.filters }}
{{ context.environment.filters }}
{{ __import__('os') }}
{{ open('/etc/passwd') }}
{{ debug() }}
{% debug %}
{% do messages.append(1) %}
{% include '/etc/passwd' %}
{% import '/etc/passwd' as x %}
{% from 'x' import y %}
{% extends 'x' %}
{% autoescape true %}{{ messages }}{% endautoescape %}
{{ messages|pprint }}
{{ messages|xmlattr }}
{{ 'x'|urlize }}
{{ x.y.z }}
{{ x() }}
{{ 1 / 0 }}
{{ unclosed
{% for %}
{% nothing %}
"""
BOMBS = r"""
{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}
{% set L = range(99999)|list %}{% for a in L %}{% for b in L %}{% for c in L %}{% endfor %}{% endfor %}{% endfor %}
{% set L = range(9999)|list %}{% for a in L if a in L %}{% for b in L if b in L %}x{% endfor %}{% endfor %}
{% set n = namespace(s='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}
{% set n = namespace(s='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}
{% set n = namespace(s='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}
{% set n = namespace(s='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.s = [n.s, n.s] | join %}{% endfor %}
{% set n = namespace(s='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s.replace('a', 'aa') %}{% endfor %}
{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}
{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = (n.s, n.s) %}{% endfor %}{{ n.s | tojson }}
{% set n = namespace(s={}) %}{% for i in range(60) %}{% set n.s = {'a': n.s, 'b': n.s} %}{% endfor %}{{ n.s | string }}
{% set n = namespace(s=1) %}{% for i in range(60) %}{% set n.s = dict(a=n.s, b=n.s) %}{% endfor %}{{ n.s }}
{% set n = namespace(s=1, t=1) %}{% for i in range(60) %}{% set n.s = [n.s]*2 %}{% set n.t = [n.t]*2 %}{% endfor %}{{ n.s == n.t }}
{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}
{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(100) }}
{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(1) }}
{% macro m(n) %}{% if n < 50 %}{{ m(n + 1, varargs, varargs) }}{% else %}{{ varargs }}{% endif %}{% endmacro %}{{ m(1) }}
{{ 'a' * 1000000000 }}
{{ 1000000000 * 'a' }}
{{ [1] * 1000000000 }}
{{ 2 ** 100000000 }}
{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}
{{ '%999999999d' | format(1) }}
{{ '%*d' | format(999999999, 1) }}
{{ '%999999999d' % 1 }}
{{ '%*d' % (999999999, 1) }}
{{ '{:999999999}'.format(1) }}
{{ '{:{w}}'.format(1, w=999999999) }}
{{ '{:>{w}}'.format(1, w='999999999') }}
{{ ('{0}' * 9000).format('a' * 90000) }}
{{ 'x'.center(1000000000) }}
{{ 'x'.ljust(1000000000) }}
{{ 'x'.zfill(1000000000) }}
{{ 'x' | indent(1000000000) }}
{{ ('\n' * 9000) | indent(90000) }}
{{ ('a' * 9000) | replace('a', 'b' * 9000) }}
{{ ('a' * 9000).replace('', 'b' * 9000) }}
{{ ('a' * 9000).join('b' * 9000) }}
{{ (['a' * 9000] * 9000) | join }}
{{ (['a' * 9000] * 9000) | string }}
{{ 1.5 | round(1000000000, 'ceil') }}
{{ [1] | batch(1000000000, 'x') | list }}
{{ [1] | slice(1000000000) | list }}
{{ range(1000000000) | list }}
{{ range(99999) | map(attribute='x', default=range(99999)|list) | list | string }}
{{ ([[1]] * 99999) | sum(start=[]) }}
{{ messages | tojson(indent=1000000000) }}
{% set L = range(99999)|list %}{% for x in L %}{% set y = L | sort %}{% endfor %}
{% set n = namespace(l=[]) %}{% for x in range(99999) %}{% set n.l = n.l + [range(99999)|list] %}{% endfor %}
{% set n = namespace(l=[]) %}{% for x in range(99999) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l }}
{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}
{% set s %}{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxx{% endfor %}{% endfor %}{% endset %}
"""
LONG = {
    "many tokens": "{{a}}" * 20_000,
    "deep brackets": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "deep lists": "{{ " + "[" * 4_000 + "]" * 4_000 + " }}",
    "deep signs": "{{ " + "-" * 10_000 + "1 }}",
    "a long sum": "{{ 1" + "+1" * 7_000 + " }}",
    "deep loops": "{% for x in [1] %}" * 150 + "{% endfor %}" * 150,
    "a long format": "{{ ('{' ~ ':' * 50000).format(1) }}",
    "open comments": "{#" * 100_000,
    "a long source": "x" * 300_000,
}


@pytest.mark.parametrize("source", REACHING.strip().split("\n"))
def test_nothing_can_be_reached(source: str):
    """Refused, or rendered to nothing: never the contents of an object of Python."""
    try:
        text = ChatTemplate(source, "test").render(MESSAGES)
    except TemplateError:
        return
    assert not re.search(r"function|method|module|object at|builtin|root:", text)


@pytest.mark.parametrize("source", BOMBS.strip().split("\n"))
def test_bombs_are_refused_in_time(source: str):
    start = time.monotonic()
    with pytest.raises(TemplateError):
        ChatTemplate(source, "test", seconds=0.2).render(MESSAGES)
    assert time.monotonic() - start < 10  # 0.2 s alone on a machine


@pytest.mark.parametrize("name", LONG)
def test_long_and_deep_sources_are_refused(name: str):
    with pytest.raises(TemplateError):
        ChatTemplate(LONG[name], "test").render(MESSAGES)


def test_the_time_limit_works_in_any_thread():
    found: list[Any] = []

    def run() -> None:
        try:
            ChatTemplate(
                "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "test", seconds=0.1
            ).render(MESSAGES)
        except TemplateError as error:
            found.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 3 and all("more than 0.1 s" in text for text in found)


def test_a_hostile_template_touches_nothing_outside():
    """No file, process, socket or import while hostile templates run."""
    seen: list[str] = []
    watching = True

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event.startswith(("open", "os.", "subprocess.", "socket.", "ctypes.", "pickle.", "import")):
            seen.append(f"{event} {arguments}")

    templates = [ChatTemplate(source, "test", seconds=0.05) for source in (REACHING + BOMBS).strip().split("\n")]
    for template in templates[:3]:
        _quietly(template)  # imports what an error message needs
    sys.addaudithook(audit)
    for template in templates:
        _quietly(template)
    watching = False
    assert seen == []


def _quietly(template: ChatTemplate) -> None:
    with contextlib.suppress(TemplateError):
        template.render(MESSAGES)


def test_long_conversations_are_within_the_limits():
    messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": "word " * 2000} for i in range(400)]
    text = ChatTemplate.named("chatml").render(messages)
    assert len(text) > 4_000_000


def test_errors_name_the_template_and_the_line():
    with pytest.raises(TemplateError, match="'mine', line 2"):
        ChatTemplate("\n{% nothing %}", "mine").render(MESSAGES)
