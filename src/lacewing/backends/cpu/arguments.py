"""What is passed to kernels: tables of int64 words. Each layout names its words; a value is the word's byte offset.

Shared by the kernels, where Numba takes the offsets as constants, and by the lowering, which fills the words in.
Addresses are of memory; strides and sizes are in bytes, widths in columns. Floats stand as bits in the low half of a word.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any


def layout(name: str, words: str) -> Any:
    """A named tuple of byte offsets, one for each word."""
    names = words.split()
    return namedtuple(name, names)(*range(0, 8 * len(names), 8))


# What all ops of a step share. T and R are the numbers of tokens and of wanted logits; ids, rows, positions and picks (the tokens
# of which logits are wanted) are addresses of int32 arrays, scratch that of SCRATCH_BYTES for each thread.
STATE = layout("State", "tokens outputs ids rows positions picks scratch")
SCRATCH_BYTES = 512 * 1024
MAX_CHUNK = 512  # tokens of one step
WHOLE_BLOCKS, IN_PIECES = 1, 2  # tile orders
FEW = 16  # tokens for which unpacking weights in tile order does not pay
TILE_COLUMNS = 256  # most columns of a tile (kernels/gemm/dot.py)

# The head of a compiled step. `table`: OP words of each op; `counters`: one int64 an op, zeroed at the start of a step;
# `yield_function`: address of a C function that gives the time slice away, or 0; `begun` counts the runs, `ended` is the last one
# that is over.
STEP = layout("Step", "ops table state threads counters yield_function begun ended")
# barrier 1: all earlier ops must be done first; fetch: FETCH of a chain's last op, or 0
OP = layout("Op", "kernel args barrier fetch")
# Words that threads write live on cache lines of their own: how many threads came to barriers, and up to where all did.
STEP_ARRIVED, STEP_PASSED, STEP_ABORT, STEP_BYTES = 128, 256, 384, 512
STEP_STOP = STEP_ABORT + 8  # the op behind which a run stops because experts are not in RAM, counted from 1; 0: none
# What a worker is told: the head of the step that it runs next, and which of its threads it is; `generation` grows with each, and
# `stop` ends it. `asleep` and `seen` (the generation that it knows) are on lines of the worker's own.
MAIL = layout("Mail", "generation step thread stop yield_function spins")
MAIL_ASLEEP, MAIL_SEEN, MAIL_BYTES = 128, 256, 384

# Ops. `counter` is the op's work counter; `bytes`, `bytes_stride` say where to put the quantised result, 0 for nowhere.
# `tiled`: the weight is in tile order (backends.weights.TileOrder), 1: with whole blocks, 2: with blocks in pieces.
# `rows`: of the table; a token whose id has none takes row `other`, or, where that is below 0, has its row already.
_ROWS_OF = "rows other weight row_bytes width out out_stride scale gathered"
EMBED = layout("Embed", f"{_ROWS_OF} tiled unpack blocks block_bytes block_columns sub_block shift")
NORM = layout(
    "Norm", "x x_stride out out_stride width heads weight weight_step bias centred eps add add_stride add_scale bytes bytes_stride"
)
# `groups`, `experts`: as in the expert products that made x. A run may leave out some of their pairs; 0: it leaves out none.
QUANTISE = layout("Quantise", "counter x x_stride width to to_stride outputs parts groups experts")
# `x_offsets`: address of int64, where the row of each token lies behind x. `direct`: the kernel for few tokens of the order that
# the weight is in, or 0: for one token of rows, `direct_blocks` at a time; for up to FEW of blocks in pieces.
_LINEAR = (
    "counter weight tiled rows row_bytes blocks block_bytes block_columns unpack dot shift x x_offsets x_scales x_sums sum_bytes "
    "direct direct_blocks "
    "out out_stride bias"
)
LINEAR = layout("Linear", f"{_LINEAR} outputs next")
# The linear of the chosen experts begins like any other; `weight` and `bias` are addresses of int64 tables of addresses, one
# an expert. `parts`: active experts a token; `x_part`: bytes from one part's x to the next, 0 if they share it. `groups`:
# what `route.group` makes.
_EXPERTS = "groups experts parts x_stride x_part out_part factor factor_stride"
EXPERTS = layout("Experts", f"{_LINEAR} {_EXPERTS}")
EXPERT_ROWS = layout("ExpertRows", f"counter weight rows row_bytes width x out out_stride bias dequantise blocks {_EXPERTS}")
ROUTE = layout(
    "Route",
    "logits logits_stride ids ids_stride weights weights_stride experts active sigmoid bias groups groups_used group_best "
    "renormalise scale scales sparse jitter watched_ids watched_probabilities",
)
# `there`: address of a table of int64, 0 for an expert that is not in RAM, or 0: all are; `counts`, `clock`, `chosen`: as of
# `ExpertSlots`; `stop`: where `place` is written if experts are missing; `fetch`: FETCH of the chain, or 0.
GROUP = layout("Group", "ids ids_stride active experts to there counts clock chosen stop place fetch")
# What `route.group` writes, int64: how many experts were chosen, then (from GROUPS_HEAD on) their ids, where the pairs of each
# begin, and all pairs (token * active + part) expert by expert; each list has room for its most.
GROUPS_HEAD = 64
# What a chain needs to have missing experts read and to wait for them (backends/fetching.py). `left`: how many are on their way;
# `collect`: the kernel that waits for them, so many nanoseconds (`patience`); `back`: ops of the chain; `ready` 0: nothing of it.
# `waiting`: of each that is on its way its expert, pair and slot; `stacks`: of each the addresses of its experts; `tables`: the
# table, stack and skipped bytes of each that skips some. `requests`: REQUEST of each slot's parts, `most_parts` a slot.
FETCH = layout(
    "Fetch",
    "left collect back groups experts ready active kept looked frequency history slot_of expert_in elsewhere memory coming pending "
    "failed part_count part_words most_parts nbytes starts counters stacks stack_count tables table_count slots counts stop "
    "place waiting requests list pipe write now time patience yield_function",
)
MOST_FETCHED = 32  # experts of a chain at once
MOST_REQUESTS = 512  # at once: a pipe takes so many addresses as a whole, or none
# A read that a thread is asked for: its address is what goes through the pipe. `done`: the count that it lowers.
REQUEST = layout("Request", "descriptor offset nbytes needed to forget done failed")
READER = layout("Reader", "descriptor room read pread advise")  # of a thread that reads: `room` for an address
# The same for all heads: `parts` of them, each with every token.
ALL_HEADS = layout("AllHeads", "heads to")
# Float experts that are stored (inputs, outputs); `skip`: columns from one output to the next, `first`: the first one's.
EXPERT_COLUMNS = layout("ExpertColumns", f"counter weight rows row_bytes width x out out_stride bias first skip {_EXPERTS}")
# Weights whose blocks of `scale_rows` rows and `scale_columns` columns have factors, `scale_bytes` from one row of them to the
# next. For experts `scales` is a table of addresses, as `weight` is, and row r of an output is row `first` + `skip` * r.
_SCALES = "scales scale_rows scale_columns scale_bytes"
SCALED = layout("Scaled", f"counter weight rows row_bytes width x x_offsets out out_stride bias outputs chunk {_SCALES}")
SCALED_EMBED = layout("ScaledEmbed", f"{_ROWS_OF} {_SCALES}")
SCALED_EXPERTS = layout(
    "ScaledExperts", f"counter weight rows row_bytes width x out out_stride bias first skip {_SCALES} {_EXPERTS}"
)
SCALE = layout("Scale", "x x_stride width table length offset")
TAILS = layout("Tails", "x x_stride x_part x_start out out_stride out_part out_start heads width")
COMBINE = layout("Combine", "x x_stride weights weights_stride out out_stride width active add add_stride ids ids_stride")
ROWS = layout("Rows", "counter weight rows row_bytes width x x_stride out out_stride bias outputs chunk dequantise blocks")
GATHER = layout("Gather", "x x_stride width out out_stride")
ANGLES = layout("Angles", "frequencies pairs magnitude out")
# Where a paged state lies (state.py): `keys` and `values` are addresses in page 0, 0 where there are none; `table`: address of the
# block tables, int32, `table_stride` bytes from one row to the next.
_PAGES = "keys values page_bytes table table_stride"
HEADS = layout("Heads", f"x stride count width norm weight bias centred eps angles pairs start adjacent hadamard {_PAGES}")
ATTENTION = layout(
    "Attention",
    f"counter q q_stride out out_stride heads key_heads key_width value_width {_PAGES} scale softcap window "
    "bytes bytes_stride group chunk sinks chosen chosen_stride most",
)
# `keys`: of the index. `scores`: float32, `rows` rows of `row_bytes`; `most`: positions that are chosen of more.
SELECT = layout(
    "Select", f"counter q q_stride weights weights_stride chosen chosen_stride heads width most {_PAGES} scores rows row_bytes"
)
# `units`: address of unit 0; `units_in`, `units_out`: of int32, the unit of each row before and after the run.
CONVOLVE = layout("Convolve", "x x_stride out out_stride width taps weight bias units unit_bytes units_in units_out")
# Likewise; `key_width`, `value_width`: rows and columns of a head's state. Tokens are prepared DELTA_TILE at a time.
DELTA = layout(
    "Delta",
    "counter q q_stride k k_stride v v_stride decay decay_stride beta beta_stride out out_stride rate bias heads key_heads "
    "key_width value_width scale eps log_rate tiled units unit_bytes units_in units_out",
)
DELTA_TILE = 64
# `widths`: address of the bytes of each part of a head, int64, with where it goes and that one's stride: three words a part.
SPLIT = layout("Split", "x x_stride heads parts widths")
# `part`: columns that share a gate.
MOST_SCAN_STATES = 2048  # of a head: so many rows of a block of the state fit a thread's scratch
SCAN = layout(
    "Scan",
    "x x_stride b b_stride c c_stride dt dt_stride out out_stride heads groups width states decay skip bias low high "
    "units unit_bytes units_in units_out",
)
# A row has `parts` equal parts, each of which is quantised as a row of its own, `bytes_stride` bytes apart. `groups`, `experts`: as
# of the expert products that made the parts. A run may leave out some of them; 0: it leaves out none.
GATED = layout(
    "Gated",
    "counter gate gate_stride up up_stride out out_stride width bytes bytes_stride parts groups experts alpha limit part positive "
    "negative beta eps",
)
CAP = layout("Cap", "counter x width scale limit")
# `tops`: float32, `tops_bytes` a row (kernels/largest.py); `parts`: what each thread found, `part_bytes` from one to the next.
LARGEST = layout("Largest", "counter x width ids tops tops_bytes parts part_bytes")
LARGEST_PIECE = 64  # registers of a piece of a row
LARGEST_PART = 16  # bytes of a row's part: a float32, and behind 8 bytes an id
READ = layout("Read", "source bytes sink")
# `weight_step`: bytes from one column's weight to the next, 0: all have one. `repeats`: of add's columns along x.
ADD_SCALE = layout("AddScale", "x x_stride add add_stride out out_stride width repeats weight weight_step factor")
ALTUP = layout("AltUp", "x x_stride width streams router router_stride weight scale new new_stride active")
MAGNITUDE = layout("Magnitude", "x x_stride like like_stride width least")
TOP_K = layout("TopK", "x x_stride width cutoff")

# What a dot kernel (kernels/gemm/dot.py) or one for a single token (kernels/gemv/gemv.py) is to do.
# `stride`: what every offset is more than the one before, or 0 if that differs.
JOB = layout("Job", "tile blocks xq xd xs offsets tokens acc shift ahead next end jump stride")
