"""out = x @ weight.T for quantised weights: tiles of LANES rows, unpacked on the way and multiplied with all tokens."""

from lacewing.backends.cpu.arguments import FEW, IN_PIECES, JOB, LINEAR, SCRATCH_BYTES, STATE, TILE_COLUMNS
from lacewing.backends.cpu.isa import AMD
from lacewing.backends.cpu.kernels.gemm.dot import ACC_AT, JOB_AT, MAX_TILES, TILE_BYTES, room_of
from lacewing.backends.cpu.kernels.simd.instructions import load_f32, peek_i64, poke_i64, prefetch, splat_f32, store_f32
from lacewing.backends.cpu.kernels.simd.registers import LANES, VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add, call_kernel

AHEAD_BYTES, FAR_AHEAD_BYTES = 8192, 36864  # how far before its use a weight is asked for, at least; measured
LARGE_TILE_BYTES = 16384  # from here on it pays to look further
GEMV_AHEAD_BYTES = 24576, 65536  # of one token, at least and at most; between them 7/8 of a tile
TILED_AHEAD_BYTES = 4608 if AMD else 9216  # in tile order, which is the order of memory: a page or two, and what is used meanwhile
# Tokens up to which two tiles of a run are read side by side, and how far ahead in each: on Intel (Sapphire Rapids) memory comes a
# tenth faster from two places. More tokens take longer to multiply than to read. Not measured on others.
SIDE_BY_SIDE, SIDE_AHEAD_BYTES = 0 if AMD or LANES < 8 else 7, 4608
TILED_START_BYTES = 16384  # of the next linear, at the end of one


def linear(args, state, thread, threads):
    """One weight times the quantised activations.

    Each thread takes its own run of tiles, so that it reads one stretch of memory, then pieces of what is left (`piece`).
    """
    scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
    tile, acc, job = scratch, scratch + ACC_AT, scratch + JOB_AT
    tokens = peek_i64(state + (STATE.outputs if peek_i64(args + LINEAR.outputs) else STATE.tokens))
    poke_i64(job + JOB.tile, tile)
    poke_i64(job + JOB.offsets, peek_i64(args + LINEAR.x_offsets))
    poke_i64(job + JOB.tokens, tokens)
    poke_i64(job + JOB.stride, stride_of(peek_i64(args + LINEAR.x_offsets), tokens))
    poke_i64(job + JOB.acc, acc)
    poke_i64(job + JOB.shift, peek_i64(args + LINEAR.shift))
    tiles = (peek_i64(args + LINEAR.rows) + LANES - 1) // LANES
    share = own_share(tiles, threads)
    first, end = piece(atomic_add(peek_i64(args + LINEAR.counter), 1), tiles, threads)
    run_tiles(args, job, acc, tokens, thread * share, (thread + 1) * share, first)
    while first < tiles:
        now, until = first, end
        first, end = piece(atomic_add(peek_i64(args + LINEAR.counter), 1), tiles, threads)
        run_tiles(args, job, acc, tokens, now, until, first)
    if peek_i64(args + LINEAR.next):
        prefetch_start(peek_i64(args + LINEAR.next), tokens, thread, threads)


@inline
def stride_of(offsets, tokens):
    """Of the rows of a step's tokens, which are evenly apart."""
    return peek_i64(offsets + 8) - peek_i64(offsets) if tokens > 1 else 0


@inline
def own_share(tiles, threads):
    """What a thread takes for certain: little enough for one of half the speed, which shares its core, to be done in time."""
    return tiles // (2 * threads)


@inline
def piece(number, tiles, threads):
    """First and end of a piece behind all shares. They shrink: `threads` of a half of what is left together, and so on."""
    first = threads * own_share(tiles, threads)
    while first < tiles:
        size = max(1, (tiles - first) // (2 * threads))
        if number < threads:
            return min(first + number * size, tiles), min(first + (number + 1) * size, tiles)
        first, number = first + threads * size, number - threads
    return tiles, tiles


@inline
def run_tiles(args, job, acc, tokens, first, end, after):
    """Tiles from `first` to `end`; then the thread goes on with `after`, if there is that many."""
    rows, row_bytes, weight = peek_i64(args + LINEAR.rows), peek_i64(args + LINEAR.row_bytes), peek_i64(args + LINEAR.weight)
    half, tile_bytes = pairs_of(args, tokens, end - first), LANES * row_bytes
    until = first + half if half else end
    poke_i64(job + JOB.end, weight + until * tile_bytes)
    poke_i64(job + JOB.jump, (after - until) * tile_bytes)
    for index in range(first, first + half):
        two_tiles(args, job, acc, weight + index * tile_bytes, half * tile_bytes)
        put(args, acc, index * LANES, tokens)
        put(args, acc + VECTOR_BYTES * room_of(tokens), (index + half) * LANES, tokens)
    first += 2 * half
    if MAX_TILES > 1 and tokens > FEW:
        while first < end:
            count = min(MAX_TILES, end - first)
            clear(acc, count * room_of(tokens))
            several_tiles(args, job, first, count)
            for i in range(count):
                put(args, acc + VECTOR_BYTES * room_of(tokens) * i, min((first + i) * LANES, rows - LANES), tokens)
            first += count
        return
    for index in range(first, end):
        # The last tile ends with the last row; rows that two tiles share get the same values from both.
        row = min(index * LANES, rows - LANES)
        next_row = min((index + 1 if index + 1 < end else after) * LANES, rows - LANES)
        clear(acc, room_of(tokens))
        one_tile(args, job, weight + row * row_bytes, row_bytes, weight + next_row * row_bytes)
        put(args, acc, row, tokens)


@inline
def several_tiles(args, job, first, count):
    """All columns of some tiles, TILE_COLUMNS of each at a time: the activations are read once for all of them."""
    rows, row_bytes, order = peek_i64(args + LINEAR.rows), peek_i64(args + LINEAR.row_bytes), peek_i64(args + LINEAR.tiled)
    blocks, block_bytes, columns = (
        peek_i64(args + LINEAR.blocks),
        peek_i64(args + LINEAR.block_bytes),
        peek_i64(args + LINEAR.block_columns),
    )
    unpack, dot, tile = peek_i64(args + LINEAR.unpack), peek_i64(args + LINEAR.dot), peek_i64(job + JOB.tile)
    weight, per_group, done = peek_i64(args + LINEAR.weight), TILE_COLUMNS // columns, 0
    while done < blocks:
        now = min(per_group, blocks - done)
        for i in range(count):
            source = weight + min((first + i) * LANES, rows - LANES) * row_bytes
            prefetch_further(source, LANES * row_bytes, count, done * block_bytes * LANES, now * block_bytes * LANES, order)
            start, stride = place(source, row_bytes, order, done, now, block_bytes)
            call_kernel(unpack, start, stride, tile + TILE_BYTES * i, now)
        poke_i64(job + JOB.blocks, now * columns // 32)
        set_activations(args, job, 0, done * columns)
        call_kernel(dot, job, count, 0, 0)
        done += now


@inline
def pairs_of(args, tokens, tiles):
    """Of so many tiles that follow each other: how many run side by side with the one that is so many further on."""
    large = peek_i64(args + LINEAR.block_columns) == TILE_COLUMNS
    return tiles // 2 if large and peek_i64(args + LINEAR.tiled) == IN_PIECES and tokens <= SIDE_BY_SIDE else 0


@inline
def two_tiles(args, job, acc, source, beside):
    """All columns of a tile and of the one `beside` bytes further on, whose accumulators are behind those of the first."""
    clear(acc, 2 * room_of(peek_i64(job + JOB.tokens)))
    poke_i64(job + JOB.ahead, SIDE_AHEAD_BYTES)
    set_activations(args, job, 0, 0)
    call_kernel(peek_i64(args + LINEAR.direct), source, beside, job, peek_i64(args + LINEAR.blocks))


@inline
def one_tile(args, job, source, row_bytes, following):
    """All columns of a tile. What comes later in memory is asked for on the way.

    `following`: where the next tile begins. The caller sets JOB.end and JOB.jump. Few tokens are left to the quant's own kernel, if
    it has one for the order of the weight.
    """
    order, tokens, direct = peek_i64(args + LINEAR.tiled), peek_i64(job + JOB.tokens), peek_i64(args + LINEAR.direct)
    if order == IN_PIECES and tokens <= FEW:
        poke_i64(job + JOB.ahead, TILED_AHEAD_BYTES)
        set_activations(args, job, 0, 0)
        call_kernel(direct, source, 0, job, peek_i64(args + LINEAR.blocks))
        return
    done = 0
    if order == 0 and direct and tokens == 1:
        done = one_token(args, job, direct, source, row_bytes, following)
    unpacked_tile(args, job, source, row_bytes, order, done)


@inline
def one_token(args, job, direct, source, row_bytes, following):
    """The blocks of rows that the kernel for one token takes; how many."""
    step = peek_i64(args + LINEAR.direct_blocks)
    steps = peek_i64(args + LINEAR.blocks) // step
    if steps:
        poke_i64(job + JOB.ahead, gemv_ahead_of(LANES * row_bytes))
        poke_i64(job + JOB.next, following)
        set_activations(args, job, peek_i64(peek_i64(job + JOB.offsets)), 0)
        call_kernel(direct, source, row_bytes, job, steps)
    return steps * step


@inline
def unpacked_tile(args, job, source, row_bytes, order, done):
    """The columns from block `done` on, TILE_COLUMNS at a time."""
    blocks, block_bytes, columns = (
        peek_i64(args + LINEAR.blocks),
        peek_i64(args + LINEAR.block_bytes),
        peek_i64(args + LINEAR.block_columns),
    )
    unpack, dot, tile = peek_i64(args + LINEAR.unpack), peek_i64(args + LINEAR.dot), peek_i64(job + JOB.tile)
    per_group = TILE_COLUMNS // columns
    ahead = source + done * block_bytes * LANES + (TILED_AHEAD_BYTES if order else ahead_of(LANES * row_bytes))
    while done < blocks:
        now = min(per_group, blocks - done)
        until = ahead + now * block_bytes * LANES
        while ahead < until:
            prefetch(ahead)
            ahead += 64
        start, stride = place(source, row_bytes, order, done, now, block_bytes)
        call_kernel(unpack, start, stride, tile, now)
        poke_i64(job + JOB.blocks, now * columns // 32)
        set_activations(args, job, 0, done * columns)
        call_kernel(dot, job, 1, 0, 0)
        done += now


@inline
def prefetch_further(source, tile_bytes, count, done, nbytes, order):
    """As many bytes of a tile as are used now, later ones; behind its end those of the tile `count` further on."""
    at = done + (TILED_AHEAD_BYTES if order else ahead_of(tile_bytes))
    if at >= tile_bytes:
        at += (count - 1) * tile_bytes
    for line in range(source + at, source + at + nbytes, 64):
        prefetch(line)


@inline
def set_activations(args, job, offset, column):
    """Where the bytes, scales and sums from a column on are, for the token at an offset."""
    x = peek_i64(args + LINEAR.x) + offset
    poke_i64(job + JOB.xq, x + column)
    poke_i64(job + JOB.xd, x + peek_i64(args + LINEAR.x_scales) + column // 8)
    poke_i64(job + JOB.xs, x + peek_i64(args + LINEAR.x_sums) + column // 32 * peek_i64(args + LINEAR.sum_bytes))


@inline
def place(source, row_bytes, order, done, now, block_bytes):
    """Where the next `now` blocks of a tile are, behind `done`, and the bytes from one row to the next there."""
    if order == 0:
        return source + done * block_bytes, row_bytes
    return source + done * block_bytes * LANES, now * block_bytes


@inline
def ahead_of(tile_bytes):
    """At least a tile."""
    return max(tile_bytes, FAR_AHEAD_BYTES if tile_bytes >= LARGE_TILE_BYTES else AHEAD_BYTES)


@inline
def gemv_ahead_of(tile_bytes):
    return min(max(tile_bytes * 7 // 8, GEMV_AHEAD_BYTES[0]), GEMV_AHEAD_BYTES[1])


@inline
def prefetch_start(args, tokens, thread, threads):
    """Ask for the beginning of this thread's run in the next linear, while the others finish."""
    tiles, row_bytes = (peek_i64(args + LINEAR.rows) + LANES - 1) // LANES, peek_i64(args + LINEAR.row_bytes)
    start = peek_i64(args + LINEAR.weight) + thread * own_share(tiles, threads) * LANES * row_bytes
    nbytes = ahead_of(LANES * row_bytes)
    if peek_i64(args + LINEAR.tiled):
        nbytes = TILED_START_BYTES
    elif tokens == 1 and peek_i64(args + LINEAR.direct):
        nbytes = gemv_ahead_of(LANES * row_bytes)
    for line in range(nbytes // 64):
        prefetch(start + 64 * line)


@inline
def clear(acc, tokens):
    zero = splat_f32(0.0)
    for t in range(tokens):
        store_f32(acc + t * VECTOR_BYTES, zero)


@inline
def put(args, acc, row, tokens):
    out, stride, bias = peek_i64(args + LINEAR.out) + 4 * row, peek_i64(args + LINEAR.out_stride), peek_i64(args + LINEAR.bias)
    if bias:
        shift = load_f32(bias + 4 * row)
        for t in range(tokens):
            store_f32(out + t * stride, load_f32(acc + t * VECTOR_BYTES) + shift)
    else:
        for t in range(tokens):
            store_f32(out + t * stride, load_f32(acc + t * VECTOR_BYTES))
