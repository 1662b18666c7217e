"""Which (token, part) pairs of a mixture a run is about: those of experts that are in RAM, while others are read."""

from lacewing.backends.cpu.arguments import GROUPS_HEAD
from lacewing.backends.cpu.kernels.simd.instructions import peek_i64, poke_i64
from lacewing.backends.cpu.kernels.simd.registers import inline


@inline
def pairs_to_do(groups, experts, every):
    """Address of the pairs, 0 if they are all of `every`; how many. groups, experts: as of the linears; groups 0: no mixture."""
    order, count = 0, every
    if groups:
        starts = groups + GROUPS_HEAD + 8 * experts
        found = peek_i64(starts + 8 * peek_i64(groups))
        if found < every:
            order, count = starts + 8 * (experts + 1), found
    return order, count


@inline
def put_pair(groups, chosen, starts, order, index, expert, pair):
    """The only one of an expert, as the index-th."""
    poke_i64(chosen + 8 * index, expert)
    poke_i64(order + 8 * index, pair)
    poke_i64(starts + 8 * index, index)
    poke_i64(starts + 8 * (index + 1), index + 1)
    poke_i64(groups, index + 1)
