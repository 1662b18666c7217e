"""The merges that follow from pieces and scores, against the plain way of finding them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.text.merges import derive_merges


def plain(pieces: list[str], ids: list[int], scores: list[float]) -> list[tuple[str, str]]:
    known = {pieces[i]: (i, score) for i, score in zip(ids, scores, strict=True)}
    found = []
    for piece, (_, score) in known.items():
        for cut in range(1, len(piece)):
            a, b = piece[:cut], piece[cut:]
            if a in known and b in known:
                found.append((-score, -len(a), -len(b), known[a][0], known[b][0], (a, b)))
    return [row[-1] for row in sorted(found)]


@given(st.sets(st.text("ab▁é", min_size=1, max_size=6), max_size=60), st.data())
@settings(max_examples=200, deadline=None)
def test_merges_equal_the_plain_way(pieces: set[str], data: st.DataObject):
    rows = sorted(pieces)
    ids = sorted(data.draw(st.sets(st.sampled_from(range(len(rows)))))) if rows else []
    levels = data.draw(st.sampled_from([[-3.0, -1.0, 0.0], range(1000)]))
    scores = data.draw(st.lists(st.sampled_from(levels), min_size=len(ids), max_size=len(ids), unique=len(levels) > 3))
    merges, expected = derive_merges(rows, np.array(ids, np.int64), np.array(scores)), plain(rows, ids, scores)
    assert list(merges) == expected and len(merges) == len(expected)
    assert [merges[at] for at in range(len(merges))] == expected and list(merges[1:]) == expected[1:]


def test_nothing_to_merge():
    assert list(derive_merges([], np.zeros(0, np.int64), np.zeros(0))) == []
    assert list(derive_merges(["a", "b"], np.arange(2), np.zeros(2))) == []
