// x @ weight.T for one token at a time, the activations as bytes (of float weights: as they are). A warp has two chunks under way, and asks
// for the first two before x is there. Grid: blocks of rows, tokens. Shared memory: 44 bytes a group, of floats 128.
//! QUANT coded F32 F16 BF16
//! ROWS 1 2
//! UNROLL 2 4
//! early
#include "chunks.cuh"
#include "outs.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    gemv_bytes(Step step, View x, u32* codes, uint2* scales, Planes planes, Outs outs, const float* bias, int rows, int groups, int columns, int by_rows,
               float scale, float softcap) {
  const int lane = threadIdx.x % WARP, units = UNITS(groups), t = blockIdx.y, chunks = (units + 32 * UNROLL - 1) / (32 * UNROLL);
  const int sets = (rows + ROWS - 1) / ROWS, stride = gridDim.x * WARPS;
  int set = blockIdx.x * WARPS + threadIdx.x / WARP, chunk = 0, coming = set, coming_chunk = 0;
  auto bring = [&](Chunk& c) {
    if (coming >= sets) return;
    u32 first[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) first[r] = (u32)min(coming * ROWS + r, rows - 1) * units;
    load_chunk(c, planes, first, coming_chunk * 32 * UNROLL, units);
    if (++coming_chunk == chunks) coming_chunk = 0, coming += stride;
  };
  start_after();
  Chunk even, odd;
  bring(even);
  bring(odd);
  wait_before();
#ifdef EIGHTS
  bring_input(x.row(by_rows ? step.output(step.first_output() + t) : t), columns, units);
#else
  bring_input({codes, scales}, t, units);
#endif
  __syncthreads();
  float sums[ROWS] = {};
  auto turn = [&](Chunk& c) {
    add_chunk(sums, c, chunk * 32 * UNROLL, units);
    bring(c);
    if (++chunk < chunks) return;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const float y = warp_sum(sums[r]);
      if (lane == r && set * ROWS + r < rows) put(outs, t, set * ROWS + r, finished(y, bias, set * ROWS + r, scale, softcap));
      sums[r] = 0.0f;
    }
    chunk = 0;
    set += stride;
  };
  while (set < sets) {
    turn(even);
    if (set < sets) turn(odd);
  }
}
