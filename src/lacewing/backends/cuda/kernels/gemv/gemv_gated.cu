// out = FUNCTION(x @ G.T) * (x @ U.T) for one token at a time, as floats and as bytes: a block makes sets of 32 values, a warp VALUES at a
// time, of as many rows of G and of U. The rows of G stand before those of U. Grid: blocks of sets, tokens. Shared memory: as `gemv_bytes`.
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
  __shared__ float4 made[2][8];  // by turns, so that one barrier a set is enough
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = blockIdx.y, sets = width / 32, chunks = (groups + 32 * UNROLL - 1) / (32 * UNROLL);
  u32 first[ROWS];
  auto begin = [&](int set, int value) {
#pragma unroll
    for (int v = 0; v < VALUES; v++) {
      first[v] = (u32)(set * 32 + value + v) * groups;
      first[VALUES + v] = first[v] + (u32)width * groups;
    }
  };
  start_after();
  Chunk now, next;
  begin(blockIdx.x, warp * VALUES);
  load_chunk(now, planes, first, 0, groups);
  wait_before();
  bring_input({codes, scales}, t, groups);
  __syncthreads();
  float sums[ROWS] = {};
  for (int set = blockIdx.x, value = warp * VALUES, chunk = 0, turn = 0; set < sets;) {
    bool last = chunk + 1 == chunks, whole = last && value + WARPS * VALUES >= 32;
    int next_set = whole ? set + gridDim.x : set, next_chunk = last ? 0 : chunk + 1;
    int next_value = whole ? warp * VALUES : last ? value + WARPS * VALUES : value;
    if (last) begin(next_set, next_value);
    if (next_set < sets) load_chunk(next, planes, first, next_chunk * 32 * UNROLL, groups);
    add_chunk(sums, now, chunk * 32 * UNROLL, groups);
    if (last) {
#pragma unroll
      for (int v = 0; v < VALUES; v++) {
        float gate = warp_sum(sums[v]), up = warp_sum(sums[VALUES + v]);
        if (lane == 0) ((float*)made[turn])[value + v] = function_of<FUNCTION>(gate, Constants{}) * up;
        sums[v] = sums[VALUES + v] = 0.0f;
      }
    }
    if (whole) {
      __syncthreads();
      if (warp == 0) {
        float4 v = made[turn][lane & 7];
        if (lane < 8) *(float4*)(out.row(t) + set * 32 + 4 * lane) = v;
        store_bytes({made_codes, made_scales}, t, sets, set * 8 + (lane & 7), v, lane < 8);
      }
      turn ^= 1;
    }
    now = next;
    set = next_set;
    value = next_value;
    chunk = next_chunk;
  }
}
