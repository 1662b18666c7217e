// out = FUNCTION(x @ G.T) * (x @ U.T) for one token at a time, as floats and as bytes: a block makes 32 values, a warp VALUES at a
// time, of as many rows of G and of U. The rows of G stand before those of U. Grid: width / 32, tokens. Shared memory: as `gemv_bytes`.
//! QUANT coded
//! FUNCTION none silu gelu gelu_tanh relu2 sigmoid
//! VALUES 1 2
//! early
#define ROWS (2 * VALUES)
#define UNROLL 2
#include "chunks.cuh"
#include "functions.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    gemv_gated(u32* codes, uint2* scales, Planes planes, View out, u32* made_codes, uint2* made_scales, int width, int groups) {
  __shared__ float4 made[8];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = blockIdx.y, chunks = (groups + 32 * UNROLL - 1) / (32 * UNROLL);
  u32 first[ROWS];
  auto begin = [&](int value) {
#pragma unroll
    for (int v = 0; v < VALUES; v++) {
      first[v] = (u32)(blockIdx.x * 32 + value + v) * groups;
      first[VALUES + v] = first[v] + (u32)width * groups;
    }
  };
  start_after();
  Chunk now, next;
  begin(warp * VALUES);
  load_chunk(now, planes, first, 0, groups);
  wait_before();
  bring_input({codes, scales}, t, groups);
  __syncthreads();
  float sums[ROWS] = {};
  for (int value = warp * VALUES, chunk = 0; value < 32;) {
    bool last = chunk + 1 == chunks;
    int next_value = last ? value + WARPS * VALUES : value, next_chunk = last ? 0 : chunk + 1;
    if (last) begin(next_value);
    if (next_value < 32) load_chunk(next, planes, first, next_chunk * 32 * UNROLL, groups);
    add_chunk(sums, now, chunk * 32 * UNROLL, groups);
    if (last) {
#pragma unroll
      for (int v = 0; v < VALUES; v++) {
        float gate = warp_sum(sums[v]), up = warp_sum(sums[VALUES + v]);
        if (lane == 0) ((float*)made)[value + v] = function_of<FUNCTION>(gate, Constants{}) * up;
        sums[v] = sums[VALUES + v] = 0.0f;
      }
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
