"""The checker's rules for sums, scales, residual streams and tables."""

import pytest

from lacewing.program.check import ProgramError, check_program
from lacewing.program.ops import Buffer, Embed, Logits, Op
from lacewing.program.program import Program
from lacewing.program.stream_ops import AddScale, AltUpCorrect, AltUpPredict, GaussianTopK, Lookup, MatchMagnitude

X = Buffer("x", 32)
ALL, FIRST, SECOND = X.view(), X.view(0, 8), X.view(8, 8)
ROUTER, NEW = Buffer("router", 4).view(), Buffer("new", 8).view()
SHAPES = {"table": (5, 8), "square": (16, 4), "each": (4, 4), "columns": (8,), "one": (1,), "embedding": (10, 32),
          "router": (10, 4), "new": (10, 8)}  # fmt: skip


def program(op: Op) -> Program:
    ops = (Embed("embedding", ALL), Embed("router", ROUTER), Embed("new", NEW), op, Logits(ALL, "embedding"))
    return Program(ops, {name: SHAPES[name] for each in ops for name in each.weight_names}, (), 10)


@pytest.mark.parametrize(
    "op",
    [
        Lookup("table", NEW, 2.0, 4), AltUpPredict(ALL, ROUTER, "square"), AltUpCorrect(ALL, ROUTER, NEW, "each", 3),
        MatchMagnitude(FIRST, NEW), GaussianTopK(ALL, 1.0), AddScale(ALL, NEW, ALL, "columns"),
        AddScale(ALL, None, ALL, "one", 2.0), AddScale(FIRST, SECOND, SECOND),
    ],
)  # fmt: skip
def test_good_ones(op: Op) -> None:
    check_program(program(op))


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Lookup("table", NEW, 1.0, 5), "row 5 of 5"),
        (Lookup("table", ROUTER), r"listed as \(5, 8\)"),
        (Lookup("table", NEW, float("inf")), "scale inf"),
        (AltUpPredict(ALL, ROUTER, "each"), r"listed as \(4, 4\)"),
        (AltUpPredict(X.view(0, 30), ROUTER, "square"), "not 4 equal streams"),
        (AltUpPredict(ALL, X.view(0, 4), "square"), "router overlaps x"),
        (AltUpCorrect(ALL, ROUTER, NEW, "each", 4), "stream 4 of 4"),
        (AltUpCorrect(ALL, ROUTER, ROUTER, "each"), "new has width 4"),
        (AltUpCorrect(ALL, ROUTER, FIRST, "each"), "new overlaps x"),
        (MatchMagnitude(ALL, NEW), "like 8"),
        (MatchMagnitude(FIRST, FIRST), "like overlaps x"),
        (MatchMagnitude(FIRST, NEW, 0.0), "least 0"),
        (GaussianTopK(ALL, float("nan")), "cutoff nan"),
        (AddScale(NEW, ALL, NEW), "does not divide"),
        (AddScale(ALL, NEW, X.view(0, 8)), "out has width 8"),
        (AddScale(X.view(0, 16), NEW, X.view(8, 16)), "out must be x itself"),
        (AddScale(ALL, NEW, ALL, "square"), "listed as"),
        (AddScale(ALL, NEW, ALL, None, float("inf")), "factor inf"),
    ],
)
def test_bad_ones(op: Op, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        check_program(program(op))


def test_tables_are_what_is_looked_up_and_nothing_else() -> None:
    assert program(Lookup("table", NEW)).tables == {"table"}
    both = program(Lookup("embedding", ALL))
    assert both.tables == frozenset()
