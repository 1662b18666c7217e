// out = FUNCTION(x @ G.T) * (x @ U.T) for one token at a time, as floats and as bytes: a block makes sets of 32 values, a warp one at a time,
// of a row of G and one of U; two chunks are under way, as in `gemv_bytes`. The rows of G stand before those of U. Grid: blocks of sets,
// tokens. Shared memory: as `gemv_bytes`.
//! QUANT coded
//! FUNCTION none silu gelu gelu_tanh relu2 sigmoid
//! early
#define ROWS 2
#define UNROLL 2
#include "chunks.cuh"
#include "functions.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    gemv_gated(u32* codes, uint2* scales, Planes planes, View out, u32* made_codes, uint2* made_scales, int width, int groups) {
  __shared__ float4 made[2][8];  // by turns, so that one barrier a set is enough
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = blockIdx.y, sets = width / 32;
  const int chunks = (groups + 32 * UNROLL - 1) / (32 * UNROLL);
  int set = blockIdx.x, value = warp, chunk = 0, turns = 0, coming = set, coming_value = value, coming_chunk = 0;
  auto bring = [&](Chunk& c) {
    if (coming >= sets) return;
    const u32 gate = (u32)(coming * 32 + coming_value) * groups, first[ROWS] = {gate, gate + (u32)width * groups};
    load_chunk(c, planes, first, coming_chunk * 32 * UNROLL, groups);
    if (++coming_chunk < chunks) return;
    coming_chunk = 0;
    if ((coming_value += WARPS) >= 32) coming_value = warp, coming += gridDim.x;
  };
  start_after();
  Chunk even, odd;
  bring(even);
  bring(odd);
  wait_before();
  bring_input({codes, scales}, t, groups);
  __syncthreads();
  float sums[ROWS] = {};
  auto turn = [&](Chunk& c) {
    add_chunk(sums, c, chunk * 32 * UNROLL, groups);
    bring(c);
    if (++chunk < chunks) return;
    const float gate = warp_sum(sums[0]), up = warp_sum(sums[1]);
    if (lane == 0) ((float*)made[turns & 1])[value] = function_of<FUNCTION>(gate, Constants{}) * up;
    sums[0] = sums[1] = 0.0f;
    chunk = 0;
    if ((value += WARPS) < 32) return;
    __syncthreads();
    if (warp == 0) {
      const float4 v = made[turns & 1][lane & 7];
      if (lane < 8) *(float4*)(out.row(t) + set * 32 + 4 * lane) = v;
      store_bytes({made_codes, made_scales}, t, sets, set * 8 + (lane & 7), v, lane < 8);
    }
    turns++;
    value = warp;
    set += gridDim.x;
  };
  while (set < sets) {
    turn(even);
    if (set < sets) turn(odd);
  }
}
