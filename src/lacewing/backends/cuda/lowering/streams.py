"""The ops of `program/stream_ops.py`: sums and scales, residual streams, tables whose rows the host brings."""

from __future__ import annotations

from lacewing.backends.cuda.arguments import blocks
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.launches import Grid
from lacewing.errors import UnsupportedModelError
from lacewing.program import stream_ops as streams

MOST_STREAMS = 8  # residual streams that a thread keeps in registers


@RULES.rule(streams.Lookup)
def lookup(compiler: Compiler, op: streams.Lookup) -> None:
    """Nothing to compute: the step writes the rows before a run."""


@RULES.rule(streams.AddScale)
def add_scale(compiler: Compiler, op: streams.AddScale) -> None:
    width = op.x.width
    arguments = [
        compiler.at(op.x), compiler.at_or_none(op.add), compiler.at(op.out), compiler.vector(op.weight), width,
        width if op.add is None else op.add.width, 0 if op.weight is None else compiler.program.weights[op.weight][0],
        float(op.factor),
    ]  # fmt: skip
    compiler.over("add_scale", {}, arguments, width)


@RULES.rule(streams.AltUpPredict)
def predict(compiler: Compiler, op: streams.AltUpPredict) -> None:
    arguments = [compiler.at(op.x), compiler.at(op.router), compiler.vector(op.weight), _width(op), float(op.scale)]
    _altup(compiler, op, "altup_predict", arguments)


@RULES.rule(streams.AltUpCorrect)
def correct(compiler: Compiler, op: streams.AltUpCorrect) -> None:
    places = [compiler.at(view) for view in (op.x, op.router, op.new)]
    _altup(compiler, op, "altup_correct", [*places, compiler.vector(op.weight), _width(op), op.active, float(op.scale)])


def _width(op: streams.AltUpPredict | streams.AltUpCorrect) -> int:
    """Of a stream."""
    return op.x.width // op.router.width


def _altup(compiler: Compiler, op: streams.AltUpPredict | streams.AltUpCorrect, kernel: str, arguments: list[object]) -> None:
    count = op.router.width
    if not 2 <= count <= MOST_STREAMS:
        raise UnsupportedModelError(f"the CUDA backend runs 2 to {MOST_STREAMS} residual streams, not {count}; use `backend='cpu'`")
    across = blocks(_width(op), 128)
    compiler.launch(kernel, {"STREAMS": count}, arguments, lambda run: Grid(across, run.tokens))


@RULES.rule(streams.MatchMagnitude)
def match_magnitude(compiler: Compiler, op: streams.MatchMagnitude) -> None:
    arguments = [compiler.at(op.x), compiler.at(op.like), op.x.width, float(op.least)]
    compiler.launch("match_magnitude", {}, arguments, lambda run: Grid(1, run.tokens))


@RULES.rule(streams.GaussianTopK)
def gaussian_top_k(compiler: Compiler, op: streams.GaussianTopK) -> None:
    compiler.launch("gaussian_top_k", {}, [compiler.at(op.x), op.x.width, float(op.cutoff)], lambda run: Grid(1, run.tokens))
