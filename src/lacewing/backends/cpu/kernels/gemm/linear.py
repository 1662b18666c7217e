"""out = x @ weight.T for quantised weights: tiles of LANES rows, unpacked on the way and multiplied with all tokens."""

from lacewing.backends.cpu.arguments import JOB, LINEAR, SCRATCH_BYTES, STATE, TILE_COLUMNS
from lacewing.backends.cpu.kernels.gemm.dot import TILE_BYTES
from lacewing.backends.cpu.kernels.simd.instructions import load_f32, peek_i64, poke_i64, prefetch, splat_f32, store_f32
from lacewing.backends.cpu.kernels.simd.registers import LANES, VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add, call_kernel

AHEAD_BYTES, FAR_AHEAD_BYTES = 8192, 36864  # how far before its use a weight is asked for, at least; measured
LARGE_TILE_BYTES = 16384  # from here on it pays to look further
GEMV_AHEAD_BYTES = 24576, 65536  # of one token, at least and at most; between them 7/8 of a tile
TILED_AHEAD_BYTES = 4608  # in tile order, which is the order of memory: a page, and what is used meanwhile
TILED_START_BYTES = 16384  # of the next linear, at the end of one


def linear(args, state, thread, threads):
    """One weight times the quantised activations.

    Each thread takes its own run of tiles, so that it reads one stretch of memory, then pieces of what is left (`piece`).
    """
    scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
    tile, acc, job = scratch, scratch + TILE_BYTES + 128, scratch + TILE_BYTES
    tokens = peek_i64(state + (STATE.outputs if peek_i64(args + LINEAR.outputs) else STATE.tokens))
    poke_i64(job + JOB.tile, tile)
    poke_i64(job + JOB.offsets, peek_i64(args + LINEAR.x_offsets))
    poke_i64(job + JOB.tokens, tokens)
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
    poke_i64(job + JOB.end, weight + end * LANES * row_bytes)
    poke_i64(job + JOB.jump, (after - end) * LANES * row_bytes)
    for index in range(first, end):
        # The last tile ends with the last row; rows that two tiles share get the same values from both.
        row = min(index * LANES, rows - LANES)
        next_row = min((index + 1 if index + 1 < end else after) * LANES, rows - LANES)
        clear(acc, tokens)
        one_tile(args, job, weight + row * row_bytes, row_bytes, weight + next_row * row_bytes)
        put(args, acc, row, tokens)


@inline
def one_tile(args, job, source, row_bytes, following):
    """All columns of a tile, TILE_COLUMNS at a time. What comes later in memory is asked for on the way.

    `following`: where the next tile begins. The caller sets JOB.end and JOB.jump.

    One token is left to the quant's own kernel, but for columns at the end that are too few for it.
    """
    blocks, block_bytes, columns, tiled = (
        peek_i64(args + LINEAR.blocks),
        peek_i64(args + LINEAR.block_bytes),
        peek_i64(args + LINEAR.block_columns),
        peek_i64(args + LINEAR.tiled),
    )
    unpack, dot = peek_i64(args + LINEAR.unpack), peek_i64(args + LINEAR.dot)
    x, scales, sums = peek_i64(args + LINEAR.x), peek_i64(args + LINEAR.x_scales), peek_i64(args + LINEAR.x_sums)
    sum_bytes = peek_i64(args + LINEAR.sum_bytes)
    tile = peek_i64(job + JOB.tile)
    per_group = TILE_COLUMNS // columns
    done, ahead = 0, TILED_AHEAD_BYTES if tiled else ahead_of(LANES * row_bytes)
    gemv, step = peek_i64(args + LINEAR.gemv), peek_i64(args + LINEAR.gemv_blocks)
    if gemv and peek_i64(job + JOB.tokens) == 1:
        row = x + peek_i64(peek_i64(job + JOB.offsets))
        if not tiled:
            ahead = gemv_ahead_of(LANES * row_bytes)
        poke_i64(job + JOB.ahead, ahead)
        poke_i64(job + JOB.next, 0 if tiled else following)
        if tiled and blocks >= per_group:
            set_activations(job, row, scales, sums, 0, sum_bytes)
            done = blocks // per_group * per_group
            call_kernel(peek_i64(args + LINEAR.tiled_gemv), source, 0, job, done // step)
        if blocks - done >= step:
            set_activations(job, row, scales, sums, done * columns, sum_bytes)
            start, stride = place(args, source, done) if tiled else (source, row_bytes)
            steps = (blocks - done) // step
            call_kernel(gemv, start, stride, job, steps)
            done += steps * step
    ahead += source + done * block_bytes * LANES
    while done < blocks:
        now = min(per_group, blocks - done)
        until = ahead + now * block_bytes * LANES
        while ahead < until:
            prefetch(ahead)
            ahead += 64
        start, stride = place(args, source, done) if tiled else (source + done * block_bytes, row_bytes)
        call_kernel(unpack, start, stride, tile, now)
        poke_i64(job + JOB.blocks, now * columns // 32)
        set_activations(job, x, scales, sums, done * columns, sum_bytes)
        call_kernel(dot, job, 0, 0, 0)
        done += now


@inline
def set_activations(job, x, scales, sums, column, sum_bytes):
    """Where the bytes, scales and sums from a column on are."""
    poke_i64(job + JOB.xq, x + column)
    poke_i64(job + JOB.xd, x + scales + column // 8)
    poke_i64(job + JOB.xs, x + sums + column // 32 * sum_bytes)


@inline
def place(args, source, done):
    """Of a tile in tile order: where its first row's block `done` lies, and the bytes from one row to the next there."""
    blocks, block_bytes = peek_i64(args + LINEAR.blocks), peek_i64(args + LINEAR.block_bytes)
    per_group = TILE_COLUMNS // peek_i64(args + LINEAR.block_columns)
    first = done // per_group * per_group
    return source + (first * LANES + done - first) * block_bytes, min(per_group, blocks - first) * block_bytes


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
    elif tokens == 1 and peek_i64(args + LINEAR.gemv):
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
