"""Compiled grammars: within limits of time and memory, the last ones kept, and what is wrong with the others in plain words."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from lacewing.assistant.grammar.matcher import Matcher
from lacewing.assistant.grammar.places import failing_place
from lacewing.assistant.grammar.room import with_room
from lacewing.assistant.grammar.source import JSON_SCHEMA, LARK, REGEX, Grammar
from lacewing.assistant.grammar.vocabulary import GrammarVocabulary, library
from lacewing.errors import GrammarError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits

    from lacewing.text.tokenizer import Tokenizer

SECONDS = 1.0  # that a grammar may take to compile, with the first mask
KEPT = 64  # grammars of a model
_OPTIONS = '%llguidance {"no_forcing": true}'
_NAMES = {JSON_SCHEMA: "JSON schema", REGEX: "regex", LARK: "grammar"}
_LIMITS = {
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 150_000,
    "step_max_items": 50_000,
    "max_lexer_states": 20_000,  # of up to 2 kB
    "max_grammar_size": 200_000,
    "verbose_errors": False,
}
_lock = threading.Lock()


class Compiled:
    """A grammar and a vocabulary, from which the constraint of each request is made."""

    def __init__(self, grammar: Grammar, vocabulary: GrammarVocabulary):
        self.grammar, self.vocabulary = grammar, vocabulary
        self._text = _serialised(grammar)
        self._starts: dict[bool, LLMatcher] = {}
        self._lock = threading.Lock()

    def follow(self, stop_ids: frozenset[int], start: bool = True) -> Matcher:
        """For one request, whose answer ends with one of `stop_ids`; `start`: it is the start of a text for the tokenizer."""
        start = start and self.vocabulary.strips_start
        later = self._fresh(False)
        return Matcher(self.vocabulary, stop_ids, later, self._fresh(True) if start else None)

    def _fresh(self, start: bool) -> LLMatcher:
        with self._lock:
            if start not in self._starts:
                self._starts[start] = self._compile(start)
            return self._starts[start].deep_copy()

    def _compile(self, start: bool) -> LLMatcher:
        """Raises GrammarError."""
        view, kind = self.vocabulary.view(start), _NAMES[self.grammar.kind]

        def work() -> LLMatcher:
            found: LLMatcher = library().LLMatcher(view, self._text, log_level=0, limits=_limits())
            tried = found.deep_copy()
            mask = self.vocabulary.mask(tried)
            error = tried.get_error()
            if error.startswith("NoExtension") or not (error or mask.any() or tried.is_accepting()):
                raise GrammarError(f"nothing satisfies the {kind}")
            if error:
                raise _error(self.grammar, error)
            return found

        return with_room(work, SECONDS, f"the {kind}")


def compile_grammar(grammar: Grammar, tokenizer: Tokenizer, vocab_size: int) -> Compiled:
    """For a model with `vocab_size` logits. The last ones are kept.

    Raises GrammarError that names the place of what is wrong, or that nothing satisfies the grammar; also without llguidance.
    """
    vocabulary = GrammarVocabulary.of(tokenizer, vocab_size)
    kept: OrderedDict[Grammar, Compiled] = vocabulary.kept
    with _lock:
        if grammar in kept:
            kept.move_to_end(grammar)
            return kept[grammar]
    made = Compiled(grammar, vocabulary)
    made.follow(frozenset())  # raises
    with _lock:
        kept[grammar] = made
        while len(kept) > KEPT:
            kept.popitem(last=False)
    return made


def _limits() -> LLParserLimits:
    made: LLParserLimits = library().LLParserLimits(**_LIMITS)
    return made


def _serialised(grammar: Grammar) -> str:
    """As llguidance takes it: the options, and the answer as a grammar of its own."""
    main = f"{_OPTIONS}\nstart: @answer"
    answer: dict[str, Any] = {"name": "answer"}
    if grammar.kind == JSON_SCHEMA:
        answer["json_schema"] = json.loads(grammar.text)
    elif grammar.kind == REGEX:
        answer["lark_grammar"] = json.loads(library().LLMatcher.grammar_from_regex(grammar.text))["grammars"][0]["lark_grammar"]
    else:
        answer["lark_grammar"] = grammar.text
    return json.dumps({"grammars": [{"lark_grammar": main}, answer]})


def _error(grammar: Grammar, message: str) -> GrammarError:
    """What llguidance says, shortly and with the place."""
    if grammar.kind == JSON_SCHEMA:
        place, message = failing_place(json.loads(grammar.text), message)
        return GrammarError(f"the JSON schema cannot be followed, at {place}: {_told(message)}")
    return GrammarError(f"the {_NAMES[grammar.kind]} cannot be followed: {_told(message)}")


def _told(message: str) -> str:
    """One line; of a regex's error, which shows the regex with a caret below, what it is and where."""
    found = re.search(r"regex parse error:\n(.*)\n( *)\^+[^\n]*\nerror: ([^\n]*)", message, re.DOTALL)
    if found is not None:
        begin = re.match(r"at (\d+)\((\d+)\): ", message)
        where = f"line {begin[1]}, column {begin[2]}: " if begin else ""
        return f"{where}the regex is wrong at character {max(1, len(found[2]) - 3)}: {found[3]}"
    first = message.split("\n", 1)[0]
    return re.sub(r"^(?:at )?(\d+)\((\d+)\): ", r"line \1, column \2: ", first)[:300]
