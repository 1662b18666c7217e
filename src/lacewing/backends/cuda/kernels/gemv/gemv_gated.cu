// out = FUNCTION(x @ G.T) * (x @ U.T) for one token at a time, as floats and as bytes: a block makes 32 values, a warp one at a time of a
// row of G and one of U. The rows of G stand before those of U. Grid: width / 32, tokens. Shared memory: as `gemv_bytes`.
//! QUANT coded
//! FUNCTION none silu gelu gelu_tanh relu2 sigmoid
//! threads 128
//! early
#define ROWS 2
#define UNROLL 4
#include "chunks.cuh"
#include "functions.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    gemv_gated(u32* codes, uint2* scales, Planes planes, View out, u32* made_codes, uint2* made_scales, int width, int groups) {
  __shared__ float4 made[8];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = blockIdx.y, chunks = (groups + 32 * UNROLL - 1) / (32 * UNROLL);
  u32 first[ROWS];
  auto begin = [&](int value) {
    first[0] = (u32)(blockIdx.x * 32 + value) * groups;
    first[1] = first[0] + (u32)width * groups;
  };
  start_after();
  Chunk now, next;
  begin(warp);
  load_chunk(now, planes, first, 0, groups);
  wait_before();
  bring_input({codes, scales}, t, groups);
  __syncthreads();
  float sums[ROWS] = {};
  for (int value = warp, chunk = 0; value < 32;) {
    bool last = chunk + 1 == chunks;
    int next_value = last ? value + WARPS : value, next_chunk = last ? 0 : chunk + 1;
    if (last) begin(next_value);
    if (next_value < 32) load_chunk(next, planes, first, next_chunk * 32 * UNROLL, groups);
    add_chunk(sums, now, chunk * 32 * UNROLL, groups);
    if (last) {
      float gate = warp_sum(sums[0]), up = warp_sum(sums[1]);
      if (lane == 0) ((float*)made)[value] = function_of<FUNCTION>(gate, Constants{}) * up;
      sums[0] = sums[1] = 0.0f;
    }
    now = next;
    value = next_value;
    chunk = next_chunk;
  }
  __syncthreads();
  if (warp == 0) {
    float4 v = made[lane & 7];
    if (lane < 8) *(float4*)(out.row(t) + blockIdx.x * 32 + 4 * lane) = v;
    store_bytes({made_codes, made_scales}, t, width / 32, blockIdx.x * 8 + (lane & 7), v, lane < 8);
  }
}
