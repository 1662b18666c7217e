"""The ops of `program/stream_ops.py`: sums and scales, residual streams, tables whose rows the host brings."""

from __future__ import annotations

from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.program import stream_ops as streams
from lacewing.program.ops import View

THREADS = 256  # of a workgroup that reduces a row


@RULES.rule(streams.Lookup)
def lookup(compiler: Compiler, op: streams.Lookup) -> None:
    """Nothing to compute: the step writes the rows before a run."""
    compiler.lookups.append(op)
    compiler.written(op.out)


@RULES.rule(streams.AddScale)
def add_scale(compiler: Compiler, op: streams.AddScale) -> None:
    width = op.x.width
    weights = [] if op.weight is None else [compiler.vector(op.weight)]
    constants = {
        "x": compiler.at(op.x), "add": None if op.add is None else compiler.at(op.add), "out": compiler.at(op.out), "width": width,
        "period": width if op.add is None else op.add.width, "factor": op.factor,
        "weighted": 0 if op.weight is None else compiler.program.weights[op.weight][0],
    }  # fmt: skip
    compiler.dispatch("add_scale", constants, weights, lambda run: (-(-width // 64), run.tokens, 1))
    compiler.written(op.out)


@RULES.rule(streams.AltUpPredict)
def predict(compiler: Compiler, op: streams.AltUpPredict) -> None:
    _altup(compiler, op, "altup_predict", {})


@RULES.rule(streams.AltUpCorrect)
def correct(compiler: Compiler, op: streams.AltUpCorrect) -> None:
    _altup(compiler, op, "altup_correct", {"new": compiler.at(op.new), "active": op.active})


def _altup(compiler: Compiler, op: streams.AltUpPredict | streams.AltUpCorrect, kernel: str, more: dict[str, object]) -> None:
    count = op.router.width
    width = op.x.width // count
    constants = {
        "x": compiler.at(op.x), "router": compiler.at(op.router), "count": count, "width": width, "scale": op.scale, **more,
    }  # fmt: skip
    compiler.dispatch(kernel, constants, [compiler.vector(op.weight)], lambda run: (-(-width // 64), run.tokens, 1))
    compiler.written(op.x)


@RULES.rule(streams.MatchMagnitude)
def match_magnitude(compiler: Compiler, op: streams.MatchMagnitude) -> None:
    _reduced(compiler, op.x, "match_magnitude", {"like": compiler.at(op.like), "least": op.least})


@RULES.rule(streams.GaussianTopK)
def gaussian_top_k(compiler: Compiler, op: streams.GaussianTopK) -> None:
    _reduced(compiler, op.x, "gaussian_top_k", {"cutoff": op.cutoff})


def _reduced(compiler: Compiler, x: View, kernel: str, more: dict[str, object]) -> None:
    threads = min(THREADS, compiler.device.most_threads)
    compiler.dispatch(
        kernel, {"x": compiler.at(x), "width": x.width, "threads": threads, **more}, [], lambda run: (1, run.tokens, 1)
    )
    compiler.written(x)
