// `gemv_bytes` for rows of whole chunks, a row a warp: less is to be done between loads. Grid: blocks of rows.
//! QUANT coded
//! UNROLL 2 4 7
//! BLOCKS 2 3 4
//! early
#define ROWS 1
#define WHOLE 1
#include "chunks.cuh"
#include "outs.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    gemv_whole(u32* codes, uint2* scales, Planes planes, PlaneBytes bytes, Outs outs, const float* bias, int rows, int groups, float scale,
               float softcap) {
  const int lane = threadIdx.x % WARP, chunks = groups / (32 * UNROLL);
  int row = blockIdx.x * WARPS + threadIdx.x / WARP, chunk = 0;
  u32 first[1] = {(u32)row * groups};
  start_after();
  Chunk even, odd;
  if (row < rows) load_chunk(even, planes, bytes, first, 0, groups);
  wait_before();
  bring_input({codes, scales}, 0, groups);
  __syncthreads();
  float sums[1] = {};
  auto turn = [&](const Chunk& now, Chunk& next) {
    const bool last = chunk + 1 == chunks;
    const int next_row = last ? row + gridDim.x * WARPS : row, next_chunk = last ? 0 : chunk + 1;
    first[0] = (u32)next_row * groups;
    if (next_row < rows) load_chunk(next, planes, bytes, first, next_chunk * 32 * UNROLL, groups);
    add_chunk(sums, now, chunk * 32 * UNROLL, groups);
    if (last) {
      const float y = warp_sum(sums[0]);
      if (lane == 0) put(outs, 0, row, finished(y, bias, row, scale, softcap));
      sums[0] = 0.0f;
    }
    row = next_row;
    chunk = next_chunk;
  };
  while (row < rows) {  // two chunks by turns, so that nothing is moved from one to the other
    turn(even, odd);
    if (row < rows) turn(odd, even);
  }
}
