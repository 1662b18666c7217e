"""llama.cpp's grammars: what they derive and nothing else, however their parts are divided between lexer and parser."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.assistant.grammar.compiled import compile_grammar
from lacewing.assistant.grammar.gbnf import lark_of_gbnf
from lacewing.assistant.grammar.source import Grammar
from lacewing.errors import GrammarError
from tests.assistant.grammar.walking import follows, kinds, walk

KIND = kinds()["bytes"]

JSON = r"""
# a value of JSON
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value
    ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws # with escapes
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC = """root  ::= (expr "=" ws term "\\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \\t\\n]*
"""
LIST = 'root ::= item+\nitem ::= "- " [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ "\\n"\n'
CASES = [
    (JSON, ['{"a": [1, 2.5e3, "x\\n\\u00e9"], "b":{}}', "{}", '{"a":\n  true}'], ["[1]", '{"a"}', '{"a": 01}', '{"a":  1}', '{"']),
    (ARITHMETIC, ["x+1= y\n", "(a*b)-c =3 \n1=1\n"], ["x+=1\n", "1=1", ""]),
    (LIST, ["- hello\n- wörld\n"], ["- a\u2028\n", "- \n", "hello\n"]),
    ('root ::= "a" | "ab" | "abc" "d"?', ["a", "ab", "abc", "abcd"], ["", "abd", "b"]),
    ('root ::= word " "? word\nword ::= [a-z]+', ["ab", "a b", "hello world"], ["a", "a  b"]),
    ('root ::= [a-z]* "x"', ["x", "xx", "axbx"], ["a", ""]),
    ('root ::= "a"{2} "b"{1,} "c"{0,2} "d"{,1}', ["aab", "aabbbccd"], ["ab", "aabccc", "aa"]),
    ('root ::= "é\\u00e9\\x41\\U0001F600\\"\\\\" [\\]\\[^-] [^]', ['ééA😀"\\]x', 'ééA😀"\\-\n'], ['ééA😀"\\ax', "é"]),
    ("root ::= (\n  \"a\" |\n  # a comment\n  b )\nb ::= . .", ["a", "é\n"], ["b"]),
    ('root ::= a a\na ::= "" | "x"', ["", "x", "xx"], ["xxx"]),
    ("root ::= x\nx-Y_1 ::= [0-9]\nx ::= x-Y_1 x | x-Y_1", ["1", "123"], ["", "a"]),
]  # fmt: skip


def says(grammar: Grammar, text: str) -> bool:
    return follows(compile_grammar(grammar, KIND.tokenizer, KIND.size), KIND, KIND.tokenizer.encode(text))


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_examples(case):
    text, right, wrong = case
    grammar = Grammar.gbnf(text)
    assert [each for each in right if not says(grammar, each)] == []
    assert [each for each in wrong if says(grammar, each)] == []


def test_what_is_delimited_is_one_lexeme_and_what_might_go_on_is_none():
    lark = lark_of_gbnf(JSON, 64)
    assert re.search(r"^r4: /\\x\{22\}.*\\x\{22\}/ r6$", lark, re.MULTILINE)  # a string without the space behind it
    assert lark_of_gbnf('root ::= [a-z]+ [a-z]+ "x"', 64) == "start: r0\nr0: (/[a-z]/)+ (/[a-z]/)+ /x/"
    assert lark_of_gbnf('root ::= [a-z]+ "1"', 64) == "start: r0\nr0: /(?:[a-z])+1/"


def test_tokens():
    begin = KIND.tokenizer.control_tokens["<|im_start|>"]
    for text in (f'root ::= <[{begin}]> "a"', 'root ::= <|im_start|> "a"'):
        compiled = compile_grammar(Grammar.gbnf(text), KIND.tokenizer, KIND.size)
        assert follows(compiled, KIND, [begin, *KIND.tokenizer.encode("a")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('root ::= "a', "line 1, column 10: what begins here is not closed"),
        ("root ::= [a", "line 1, column 10: what begins here is not closed"),
        ('a ::= "b"\nroot ::= ("a"\n', r"line 2, column 10: expected \) for this \("),
        ('root ::= "a")', r"line 1, column 13: did not expect '\)' here"),
        ('root = "a"', "line 1, column 6: expected ::= after the name root"),
        ('root ::= a\n\nb ::= "x"', "line 1, column 10: there is no rule a"),
        ('rot ::= "a"', "no rule root"),
        ('root ::= "a"\nroot ::= "b"', "line 2, column 1: the rule root is defined twice"),
        ('root ::= "\\q"', r"line 1, column 11: '\\\\q\"' is not an escape"),
        ('root ::= "\\ud800"', "is not an escape"),
        ("root ::= [z-a]", "the range from 'z' to 'a' is empty"),
        ("root ::= []", "line 1, column 10: a class of no characters"),
        ('root ::= "a"{3,2}', "at least 3 and at most 2 times is never"),
        ('root ::= "a"{x}', r"line 1, column 13: expected \{count\}"),
        ("root ::= !<|x|>", "line 1, column 10: expected a token"),
        ('!root ::= "a"', "line 1, column 1: expected the name of a rule"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text, message):
    with pytest.raises(GrammarError, match=message):
        Grammar.gbnf(text)


LETTERS = st.sampled_from("abc")
ATOMS = st.one_of(
    LETTERS.map(lambda each: (f'"{each}"', each)),
    st.sampled_from([("[ab]", "[ab]"), ("[^a]", "[^a]"), ('"ab"', "ab"), ("[a-c]", "[a-c]")]),
)


def _combined(parts: st.SearchStrategy) -> st.SearchStrategy:
    row = st.lists(parts, min_size=1, max_size=4)
    times = st.sampled_from(["*", "+", "?", "{1,2}", "{2}"])
    return st.one_of(
        row.map(lambda each: (" ".join(one[0] for one in each), "".join(one[1] for one in each))),
        row.map(lambda each: ("(" + " | ".join(one[0] for one in each) + ")", "(?:" + "|".join(one[1] for one in each) + ")")),
        st.tuples(parts, times).map(lambda each: (f"({each[0][0]}){each[1]}", f"(?:{each[0][1]}){each[1]}")),
    )


@given(pair=st.recursive(ATOMS, _combined, max_leaves=8), seed=st.integers(0, 1000))
@settings(max_examples=120, deadline=None)
def test_random_grammars_say_what_a_regex_says(pair, seed):
    """Python's regexes are the oracle. What is said is derived; what is derived could be said unless a lexer must look ahead."""
    text, regex = pair
    grammar = Grammar.gbnf(f"root ::= x\nx ::= {text}\n")
    ids, ended = walk(compile_grammar(grammar, KIND.tokenizer, KIND.size), KIND, seed, most=60)
    if ended:
        assert re.fullmatch(regex, KIND.tokenizer.decode(ids), re.DOTALL)
