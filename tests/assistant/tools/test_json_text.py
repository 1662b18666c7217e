import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lacewing.assistant.tools.json_text import MAX_DEPTH, JsonCopier

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def cut(text, places):
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(edges)]


def copied(pieces):
    """What comes out, how much was read, and the copier."""
    copier, out, read = JsonCopier(), "", 0
    for piece in pieces:
        used = copier.push(piece)
        out, read = out + copier.take(), read + used
        if used < len(piece):
            break
    return out, read, copier


@given(VALUES, st.lists(st.integers(0, 500), max_size=8), st.booleans(), st.sampled_from([None, 2]))
def test_valid_json_comes_out_as_it_went_in(value, places, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    out, read, copier = copied(cut(text + " rest", places))
    assert (out, copier.done) == (text, True) and read == len(text)


@given(VALUES, st.integers(0, 500), st.lists(st.integers(0, 500), max_size=8))
def test_an_early_end_is_closed_to_one_whole_value(value, end, places):
    text = json.dumps(value)
    text = text[: end % (len(text) + 1)]
    out, _, copier = copied(cut(text, places))
    json.loads(out + copier.close())


@given(st.text(alphabet="{}[]\"'\\,:truefalsnone019.-+eE \n\tu\x01", max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_whatever_comes_is_closed_to_one_whole_value_wherever_it_is_cut(text, places):
    out, read, copier = copied(cut(text, places))
    once, at_once, _ = copied([text])
    assert (out, read) == (once, at_once)
    json.loads(out + copier.close())


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{'a': 'it is \"so\"'}", {"a": 'it is "so"'}),
        ("{'a': 'don\\'t'}", {"a": "don't"}),
        ('{"a": True, "b": None, "c": [False,],}', {"a": True, "b": None, "c": [False]}),
        ('{"a": "two\nlines\tand a tab"}', {"a": "two\nlines\tand a tab"}),
        (r'{"a": "\d+\s"}', {"a": r"\d+\s"}),
        (r'{"a": "C:\users"}', {"a": r"C:\users"}),
        ('{"a": NaN}', {"a": None}),
    ],
)
def test_what_models_write_instead_of_json_is_put_right(written, meant):
    out, read, copier = copied([written])
    assert read == len(written) and copier.done and json.loads(out) == meant


@pytest.mark.parametrize(
    ("written", "read", "closed"),
    [
        ('{"a": 1 oops}', 8, {"a": 1}),
        ('{"a" 1}', 5, {"a": None}),
        ("{a: 1}", 1, {}),
        ('[1, 2, "x', 9, [1, 2, "x"]),
        ('{"a": "b\\', 9, {"a": "b"}),
        ('{"a": 01}', 8, {"a": None}),
    ],
)
def test_other_text_is_not_read_and_the_value_is_closed_before_it(written, read, closed):
    out, count, copier = copied([written])
    assert count == read and json.loads(out + copier.close()) == closed


def test_depth_is_limited():
    out, _, copier = copied(["[" * 100_000])
    assert copier.broken and json.loads(out + copier.close()) is not None and out.count("[") == MAX_DEPTH
