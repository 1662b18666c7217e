// x @ weight.T for one token at a time, the activations as bytes (of float weights: as they are). While a warp adds up some groups, the
// next ones are on their way; the first are asked for before x is there. Grid: blocks of rows, tokens. Shared memory: 44 bytes a group, of floats 128.
//! QUANT coded F32 F16 BF16
//! ROWS 1 2
//! UNROLL 2 4
//! early
#include "chunks.cuh"
#include "outs.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    gemv_bytes(Step step, View x, u32* codes, uint2* scales, Planes planes, Outs outs, const float* bias, int rows, int groups, int columns, int by_rows,
               float scale, float softcap) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, units = UNITS(groups), t = blockIdx.y;
  int chunks = (units + 32 * UNROLL - 1) / (32 * UNROLL), sets = (rows + ROWS - 1) / ROWS, set = blockIdx.x * WARPS + warp;
  u32 first[ROWS];
  auto begin = [&](int set) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) first[r] = (u32)min(set * ROWS + r, rows - 1) * units;
  };
  start_after();
  Chunk now, next;
  begin(set);
  if (set < sets) load_chunk(now, planes, first, 0, units);
  wait_before();
#ifdef EIGHTS
  bring_input(x.row(by_rows ? step.output(step.first_output() + t) : t), columns, units);
#else
  bring_input({codes, scales}, t, units);
#endif
  __syncthreads();
  float sums[ROWS] = {};
  for (int chunk = 0; set < sets;) {
    bool last = chunk + 1 == chunks;
    int next_set = last ? set + gridDim.x * WARPS : set, next_chunk = last ? 0 : chunk + 1;
    if (last) begin(next_set);
    if (next_set < sets) load_chunk(next, planes, first, next_chunk * 32 * UNROLL, units);
    add_chunk(sums, now, chunk * 32 * UNROLL, units);
    if (last) {
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        float y = warp_sum(sums[r]);
        if (lane == r && set * ROWS + r < rows) put(outs, t, set * ROWS + r, finished(y, bias, set * ROWS + r, scale, softcap));
        sums[r] = 0.0f;
      }
    }
    now = next;
    set = next_set;
    chunk = next_chunk;
  }
}
