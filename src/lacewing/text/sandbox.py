"""The Jinja environment of chat templates. A template is a program from a stranger; this bounds what it can reach and do.

Reach: Jinja's immutable sandbox, without loader, includes or automatic escaping, with named filters, functions and methods only.
Time and memory: every loop turn, call and filter asks the budget, and so does whatever builds a string or a container, before
it is built. Single operations are thereby short, and no process or thread has to be killed.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import _GroupTuple
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Cycler, Joiner
from jinja2.visitor import NodeTransformer

from lacewing.errors import TemplateError
from lacewing.text.budget import MAX_INTEGER_BITS, check_growth, current
from lacewing.text.filters import Each, SafeNamespace, filters, functions
from lacewing.text.provenance import Arguments, as_string, as_text, join, joined, mark, printf, touched, writable
from lacewing.text.vocabulary import words

_METHODS: dict[type, frozenset[str]] = {
    str: words(
        """capitalize casefold center count endswith find format format_map index isalnum isalpha isascii isdecimal isdigit
        isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition removeprefix
        removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper
        zfill"""
    ),
    dict: words("copy get items keys values"),
    list: words("copy count index"),
    tuple: words("count index"),
    _GroupTuple: words("grouper list"),
    Cycler: words("current next reset"),
}
_MUTATING: dict[type, frozenset[str]] = {
    list: words("append clear extend insert pop remove reverse sort"),
    dict: words("clear pop popitem setdefault update"),
}
_BOUND = (types.BuiltinMethodType, types.MethodType)
_FOLLOWED = (Joiner, Macro, LoopContext, BlockReference)  # what they return was joined by `Sandbox.concat`
_HOLDERS = (dict, list, tuple, Cycler, LoopContext)  # their methods hand on what they hold

MAX_TOKENS = 16_000  # of a template's source; the longest in use has 2,500


class Bounds(Extension):
    """Counts the tokens of a template's source, which bounds the time to compile it: 30 us each."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for count, token in enumerate(stream):
            if count > MAX_TOKENS:
                raise TemplateError(f"its source has more than {MAX_TOKENS} tokens")
            yield token


class GenerationTag(Extension):
    """`{% generation %}` marks the parts to train on; here it only groups."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """`mutable`: lists and dicts of the (copied) input may be changed, which a few templates (Kimi) do."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *, mutable: bool, now: Callable[[], datetime]):
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, GenerationTag, Bounds], cache_size=0
        )
        self.mutable = mutable
        self.filters = filters()
        self.globals = functions(now)
        self.finalize = as_string  # every `{{ value }}` passes here
        self.concat = joined  # type: ignore[method-assign]

    def template(self, source: str) -> Any:
        """Compiles a template. Raises jinja2.TemplateError, or TemplateError for what is refused."""
        tree = _Guards(self).visit(self.parse(source))
        return self.template_class.from_code(self, self.compile(tree), self.make_globals(None))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if type(obj) is SafeNamespace:  # first: templates with one read it thousands of times, and `isinstance` is slow of it
            return not attr.startswith("_")
        if not SandboxedEnvironment.is_safe_attribute(self, obj, attr, value):
            return False
        if isinstance(obj, (LoopContext, Macro)):
            return True
        allowed = (names for kind, names in _METHODS.items() if isinstance(obj, kind))
        mutating = (names for kind, names in _MUTATING.items() if self.mutable and isinstance(obj, kind))
        return any(attr in names for names in (*allowed, *mutating))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = current()
        budget.tick()
        given = [*args, *_given(kwargs).values()]
        for value in given:
            budget.container(value)
        if isinstance(__obj, LoopContext) and args:
            args = (Each(args[0]), *args[1:])
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and isinstance(__obj, _BOUND):
            return _string_method(owner, __obj.__name__, args, _given(kwargs))
        result = super().call(__context, __obj, *args, **kwargs)
        budget.container(result)
        followed = isinstance(__obj, _FOLLOWED) or isinstance(owner, _HOLDERS)
        return result if followed or not touched(given) else mark(result)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if not isinstance(value, _BOUND) or value.__name__ not in ("format", "format_map") or not isinstance(value.__self__, str):
            return None
        name, owner = value.__name__, value.__self__

        def guarded(*args: Any, **kwargs: Any) -> str:
            kwargs = _given(kwargs)
            given = (owner, *args, *kwargs.values())
            check_growth("format_map", given)
            if name == "format_map":
                args, kwargs = (), *args
            result = _Formatter(self).vformat(str.__str__(owner), args, kwargs)
            return str(mark(result)) if touched(given) else result

        return guarded

    def call_binop(self, context: Context, operator_: str, left: Any, right: Any) -> Any:
        budget = current()
        budget.tick()
        if operator_ == "+" and isinstance(left, (str, Arguments)) and isinstance(right, (str, Arguments)):
            return joined([left, right])
        if operator_ == "%" and isinstance(left, str):
            return printf(left, right)
        if operator_ in ("*", "**"):
            return _multiply(operator_, left, right)
        value = self.binop_table[operator_](left, right)
        budget.container(value)
        return value


class _Formatter(SandboxedFormatter):
    """Of `str.format`: writes objects as we do."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        value, first = super().get_field(field_name, args, kwargs)
        return writable(value), first


def _given(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Without what Jinja itself passes along."""
    return {key: value for key, value in kwargs.items() if not key.startswith("_")}


def _multiply(sign: str, left: Any, right: Any) -> Any:
    """Products and powers of bounded size; of a string or list and a number as well."""
    budget = current()
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if sign == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_INTEGER_BITS:
            raise TemplateError("it computes with a number that is too large")
        return operator.pow(left, right) if sign == "**" else left * right
    if sign == "*" and isinstance(right, (str, list, tuple)):
        left, right = right, left
    if sign == "*" and isinstance(left, (str, list, tuple)) and isinstance(right, int):
        budget.count([right])
        budget.string(len(left) * max(right, 0) * (1 if isinstance(left, str) else 16))
        if isinstance(left, str):
            return join([left] * right)
        budget.container([left] * right)
        return left * right
    return left**right if sign == "**" else left * right


def _string_method(owner: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a method of a string so that the result knows which characters a user wrote."""
    if name == "join" and len(args) == 1:
        return joined(Each(args[0]), owner)
    check_growth(name, (owner, *args))
    given = (owner, *args, *kwargs.values())
    if not touched(value for value in given if not isinstance(value, tuple)):
        return getattr(str.__str__(owner), name)(*args, **kwargs)
    result = getattr(as_text(owner), name)(*args, **kwargs)
    current().container(result)
    return mark(result)


class _Guards(NodeTransformer):
    """Rewrites a parsed template so that loops, `~` and written-out containers ask the budget; refuses other tags."""

    def __init__(self, environment: Sandbox):
        self._environment = environment

    def _through(self, name: str, node: nodes.Node) -> nodes.Filter:
        made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
        return made.set_environment(self._environment)  # type: ignore[return-value]

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._through("_each", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._through("_concat", nodes.List(node.nodes, lineno=node.lineno).set_environment(self._environment))

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._container(node)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._container(node) if node.ctx == "load" else self.generic_visit(node)

    def _container(self, node: nodes.Node) -> nodes.Node:
        self.generic_visit(node)
        children = [child for child in node.iter_child_nodes() if not isinstance(child, nodes.Const)]
        return self._through("_box", node) if children else node

    def _refuse(self, node: nodes.Node) -> nodes.Node:
        raise TemplateError(f"line {node.lineno}: chat templates cannot use {type(node).__name__.lower()}")

    visit_Include = visit_Import = visit_FromImport = visit_Extends = _refuse
    visit_EvalContextModifier = visit_ScopedEvalContextModifier = _refuse
