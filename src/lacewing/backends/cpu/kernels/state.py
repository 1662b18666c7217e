"""What all ops of a step share: int64 words at the address `state` that every kernel gets."""

(
    STATE_TOKENS,  # T
    STATE_OUTPUTS,  # R, rows of which logits are wanted
    STATE_IDS,  # address of int32 (T,) token ids
    STATE_SLOTS,  # address of int32 (T,)
    STATE_POSITIONS,  # address of int32 (T,)
    STATE_ROWS,  # address of int32 (R,)
    STATE_SCRATCH,  # address of SCRATCH_BYTES for each thread
    STATE_CONTEXT,  # positions a slot
) = range(0, 64, 8)

MAX_CHUNK = 512  # tokens of one step
SCRATCH_BYTES = 256 * 1024  # of each thread
