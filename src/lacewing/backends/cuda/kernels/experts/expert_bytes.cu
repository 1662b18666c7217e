// As `expert_gemv`, the activations as bytes (of float weights: as they are): a warp makes two rows of one expert for one token at a time.
// Grid: blocks of an expert's rows, active, tokens. Shared memory: as `gemv_bytes`.
//! QUANT coded F32 F16 BF16
//! early
#define ROWS 2
#define UNROLL 2
#include "chunks.cuh"
#include "outs.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    expert_bytes(View x, u32* codes, uint2* scales, View ids, View factor, Planes planes, Outs outs, const float* bias, int rows, int parts,
                 int groups, int columns, int active, int separate, int interleaved) {
  int lane = threadIdx.x % WARP, units = UNITS(groups), a = blockIdx.y, t = blockIdx.z, all = rows * parts;
  int set = blockIdx.x * WARPS + threadIdx.x / WARP, sets = (all + ROWS - 1) / ROWS;
  start_after();
  wait_before();
  int expert = ids.ids(t)[a];
  if (expert < 0) return;
  u32 first[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) first[r] = ((u32)expert * all + min(set * ROWS + r, all - 1)) * units;
  Chunk now, next;
  if (set < sets) load_chunk(now, planes, first, 0, units);
#ifdef EIGHTS
  bring_input(x.row(t) + (separate ? a * columns : 0), columns, units);
#else
  bring_input({codes, scales}, separate ? t * active + a : t, units);
#endif
  __syncthreads();
  if (set >= sets) return;
  float sums[ROWS] = {};
  for (int start = 0; start < units; start += 32 * UNROLL) {
    if (start + 32 * UNROLL < units) load_chunk(next, planes, first, start + 32 * UNROLL, units);
    add_chunk(sums, now, start, units);
    now = next;
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    float y = warp_sum(sums[r]);
    int row = set * ROWS + r;
    if (lane != r || row >= all) continue;
    if (factor.at) y *= factor.row(t)[a];
    if (bias) y += bias[(size_t)expert * all + row];
    int part = interleaved ? row % parts : row / rows, at = interleaved ? row / parts : row % rows;
    view_of(outs, part).row(t)[a * rows + at] = y;
  }
}
