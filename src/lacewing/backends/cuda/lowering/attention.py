"""The KV cache and attention: tokens one by one, whose keys may be divided into splits, and tokens of rows with many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lacewing.backends.batch import StepLimits
from lacewing.backends.cuda.arguments import NULL, STEP, Pointer, Store, Struct, blocks, pages
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.inputs import ONE_FROM_ATTENTION, byte_buffers
from lacewing.backends.cuda.lowering.launches import NEVER, Forms, Grid
from lacewing.backends.cuda.lowering.products import TENSOR
from lacewing.backends.cuda.lowering.rows import FARTHEST
from lacewing.backends.gpu.inputs import PREFILL_TOKENS
from lacewing.backends.gpu.layouts import GROUP
from lacewing.backends.gpu.pages import PageLayout
from lacewing.backends.gpu.run import Run
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops

ALONE, SPLIT_LEAST, SPLIT_MOST = 256, 128, 64  # as `attention/seen.cuh` has them
PARTS_BYTES = 2**26  # of what splits leave; more tokens than fit are done in several passes
LANES = 32
VALUES = (4, 8, 16, 32)  # values of a lane, as `attention.cu` declares
WIDTHS = (64, 128, 256)  # of heads, for tensor cores
QUERIES = 64  # tokens of a tile of a prompt
MOST_KEYS = 2**13  # values of a key, which a block has in shared memory
BY_ONE, OF_MANY, OF_ALL = 0, 1, 2  # which tokens a launch takes, as in `attention.cu`


@RULES.rule(ops.WriteKeysValues)
def write_keys_values(compiler: Compiler, op: ops.WriteKeysValues) -> None:
    layout = compiler.page_layout(op.state)
    heads = sum(rows.heads for rows in layout.parts)
    arguments = [
        STEP, compiler.at(op.k), compiler.at_or_none(op.v), compiler.at_or_none(op.index), Store(op.state), pages(layout),
    ]  # fmt: skip
    compiler.launch("write_kv", {"KV": layout.dtype}, arguments, lambda run: Grid(run.tokens, heads))


def most_splits(keys: int) -> int:
    """Splits of the token that has the most of them, among tokens that see up to `keys`; see `seen.cuh`."""
    most, size = 1, ALONE
    while size < keys:
        size *= 2  # those that see more than half of it have splits of one length
        most = max(most, -(-min(size, keys) // max(SPLIT_LEAST, size // SPLIT_MOST)))
    return most


@dataclass(frozen=True)
class Splits:
    """How the keys of decoded tokens are divided: `most_tokens` at a time, whose splits leave `token_bytes` each."""

    reach: int  # keys that a token sees at most
    tokens: int  # that are decoded in a run at most
    most_tokens: int
    token_bytes: int

    @staticmethod
    def of(limits: StepLimits, op: ops.Attention) -> Splits:
        most = None if op.chosen is None else op.chosen.width
        reach = min(limits.context, op.window or limits.context, op.chunk or limits.context, most or limits.context)
        token_bytes = 4 * op.heads * most_splits(reach) * (op.value_width + 2)
        tokens = min(limits.chunk, (PREFILL_TOKENS - 1) * limits.rows if op.chosen is None else limits.chunk)
        return Splits(reach, tokens, min(tokens, max(1, PARTS_BYTES // token_bytes)), token_bytes)

    @property
    def nbytes(self) -> int:
        """Of what is left at a time."""
        return self.most_tokens * self.token_bytes if most_splits(self.reach) > 1 else 0


@RULES.rule(ops.Attention)
def attention(compiler: Compiler, op: ops.Attention) -> None:
    kv = compiler.page_layout(op.state, op.value_width)
    if kv.key_width > MOST_KEYS or kv.value_width > LANES * VALUES[-1]:
        widths = f"keys of {kv.key_width} values and values of {kv.value_width}"
        raise UnsupportedModelError(f"attention heads with {widths} are too wide for the CUDA backend; use `backend='cpu'`")
    splits = Splits.of(compiler.limits, op)
    forms = _forms(compiler, op, kv)
    if op.chosen is not None and compiler.limits.context > op.chosen.width:
        _launches(compiler, op, kv, splits, OF_ALL, forms)
    _launches(compiler, op, kv, splits, BY_ONE, forms)
    if _becomes_forms(compiler, op, kv):
        compiler.prepared[ONE_FROM_ATTENTION] = (op.out, False), compiler.index + 1
    if compiler.limits.chunk >= PREFILL_TOKENS:
        _whole(compiler, op, kv, OF_MANY, lambda run: 0 if _is_sparse(op, run) else sum(run.prefill))


def _becomes_forms(compiler: Compiler, op: ops.Attention, kv: PageLayout) -> bool:
    """Whether the next product takes the result, and the kernels can make the forms that it needs."""
    after = compiler.program.ops[compiler.index + 1 : compiler.index + 2]
    taken = bool(after) and isinstance(after[0], ops.Linear) and after[0].x == op.out
    return taken and tensor_width(compiler, kv) is not None and kv.value_width % GROUP == 0


def _forms(compiler: Compiler, op: ops.Attention, kv: PageLayout) -> Forms:
    """Of one token bytes; what else the next product takes, it asks for."""
    if not _becomes_forms(compiler, op, kv):
        return Forms(op.out, fewest=NEVER)
    codes, scales = byte_buffers(compiler, ONE_FROM_ATTENTION)
    return Forms(op.out, codes=codes, byte_scales=scales, bytes_most=1, prompts=False)


def _is_sparse(op: ops.Attention, run: Run) -> bool:
    """Whether some token of a run may see more positions than an index chooses."""
    return op.chosen is not None and run.reach > op.chosen.width


def _launches(compiler: Compiler, op: ops.Attention, kv: PageLayout, splits: Splits, which: int, forms: Forms) -> None:
    """Of tokens one by one: without splits where no token of the run has them, else a pass for so many tokens as fit."""

    def tokens(run: Run) -> int:
        sparse = _is_sparse(op, run)
        return (run.tokens if sparse else 0) if which == OF_ALL else 0 if sparse else run.decode

    def count(run: Run) -> int:
        return most_splits(min(run.reach if which == OF_ALL else run.kv_len, splits.reach))

    _whole(compiler, op, kv, which, lambda run: tokens(run) if count(run) == 1 else 0, forms)
    most = most_splits(splits.reach)
    if most == 1:
        return
    parts = compiler.scratch("sums of attention", splits.nbytes)
    limit = compiler.limits.chunk if which == OF_ALL else splits.tokens
    for first in range(0, limit, splits.most_tokens):

        def passing(run: Run, first: int = first) -> int:
            return max(0, min(tokens(run) - first, splits.most_tokens)) if count(run) > 1 else 0

        def split(run: Run, passing=passing) -> Grid | None:  # type: ignore[no-untyped-def]
            return Grid(op.heads, most, passing(run)) if passing(run) else None

        def merged(run: Run, passing=passing) -> Grid | None:  # type: ignore[no-untyped-def]
            return Grid(op.heads, passing(run)) if passing(run) else None

        if tensor_width(compiler, kv) is None:
            macros, arguments, shared = _arguments(compiler, op, kv)
            compiler.launch(
                "attention", macros, [*arguments[:7], parts, arguments[7], which, first], split, "attention_split", shared=shared
            )
            width = [op.heads, kv.value_width, most, which, first]
            compiler.launch("attention_merge", {}, [STEP, compiler.at(op.out), compiler.vector(op.sinks), parts, *width], merged)
            continue

        def size(run: Run, passing: Callable[[Run], int] = passing) -> tuple[int, int]:
            return count(run), passing(run)

        _decode(compiler, op, kv, parts, which, first, most, size, Forms(op.out, fewest=NEVER))
        reach = [min(op.window or 0, FARTHEST), min(op.chunk or 0, FARTHEST)]
        chosen = [0, False] if op.chosen is None else [op.chosen.width, True]
        numbers = [op.heads, kv.value_width, most, which, first, *reach, *chosen]
        compiler.launch(
            "attention_join", {}, [STEP, compiler.at(op.out), compiler.vector(op.sinks), parts, *numbers], merged, forms=forms
        )


def tensor_width(compiler: Compiler, kv: PageLayout) -> int | None:
    """The width of heads that kernels on tensor cores have for these; None: they have none.

    Who asks for pages of float32 wants its digits, which float16 has not.
    """
    if compiler.device.number < TENSOR or kv.dtype == "f32":
        return None
    return next((each for each in WIDTHS if each >= max(kv.key_width, kv.value_width)), None)


def _decode(
    compiler: Compiler, op: ops.Attention, kv: PageLayout, parts: Pointer, which: int, first: int, splits: int,
    size: Callable[[Run], tuple[int, int]], forms: Forms,
) -> None:  # fmt: skip
    """Tokens one by one on tensor cores; `size`: splits and tokens of a run."""
    _, arguments, _ = _arguments(compiler, op, kv)
    together = op.heads // op.key_heads
    tile = 8 if together <= 8 else 16
    across = op.key_heads * blocks(together, tile)

    def grid(run: Run) -> Grid | None:
        count, tokens = size(run)
        return Grid(across, count, tokens) if tokens else None

    macros = {"KV": kv.dtype, "WIDTH": tensor_width(compiler, kv), "TILE": tile}
    compiler.launch("attention_decode", macros, [*arguments[:7], parts, arguments[7], which, first, splits], grid, forms=forms)


def _whole(  # type: ignore[no-untyped-def]
    compiler: Compiler, op: ops.Attention, kv: PageLayout, which: int, tokens, forms: Forms | None = None
) -> None:
    """Of tokens whose keys are not divided; `forms`: of tokens one by one."""
    width = tensor_width(compiler, kv)
    if width is not None and forms is not None:
        _decode(compiler, op, kv, NULL, which, 0, 1, lambda run: (1, tokens(run)), forms)
        return
    if width is not None:
        _, found, _ = _arguments(compiler, op, kv)

        def tiles(run: Run) -> Grid | None:
            count = sum(blocks(each, QUERIES) for each in run.prefill)
            return Grid(count, op.heads) if tokens(run) else None

        room = 4 * (32 if width == 256 else 64) * (2 * width + 16)
        compiler.launch("attention_prefill", {"KV": kv.dtype, "WIDTH": width}, [*found[:5], *found[6:]], tiles, shared=room)
        return
    macros, arguments, shared = _arguments(compiler, op, kv)
    compiler.launch(
        "attention", macros, [*arguments[:7], NULL, arguments[7], which, 0],
        lambda run: Grid(op.heads, 1, tokens(run)) if tokens(run) else None, shared=shared,
    )  # fmt: skip


def _arguments(compiler: Compiler, op: ops.Attention, kv: PageLayout) -> tuple[dict[str, object], list[object], int]:
    """Macros, arguments and shared memory of `attention.cu`."""
    in_word = {"f16": 2, "f32": 1, "q8_0": 4}[kv.dtype]
    words = -(-kv.value_width // (in_word * LANES)) * in_word
    most = 0 if op.chosen is None else op.chosen.width
    numbers = Struct((
        op.heads, op.key_heads, kv.key_width, kv.value_width, min(op.window or 0, FARTHEST), min(op.chunk or 0, FARTHEST), most,
        float(op.scale), float(op.softcap or 0.0),
    ))  # fmt: skip
    arguments: list[object] = [
        STEP, compiler.at(op.q), compiler.at(op.out), Store(op.state), pages(kv), compiler.at_or_none(op.chosen),
        compiler.vector(op.sinks), numbers,
    ]  # fmt: skip
    macros: dict[str, object] = {"KV": kv.dtype, "VALUES": next(each for each in VALUES if each >= words)}
    return macros, arguments, 4 * kv.keys.value_words * in_word
