// out = FUNCTION(x @ G.T) * (x @ U.T) for one token on Hopper (`ring.cuh`), as floats and as bytes: a block makes sets of 32 values, a warp
// one at a time, of a row of G and one of U. The rows of G stand before those of U. Grid: blocks that run at a time. Shared memory: as
// `gemv_ring`.
//! QUANT coded
//! FUNCTION none silu gelu gelu_tanh relu2 sigmoid
//! SPAN 32 64 128
//! SLOTS 2 3 4
//! arch 90
//! threads 512
//! early
#define ROWS 2
#include "ring.cuh"
#include "functions.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    gated_ring(u32* codes, uint2* scales, Planes planes, PlaneBytes bytes, View out, u32* made_codes, uint2* made_scales, int width,
               int groups) {
  __shared__ u64 barriers[WARPS * SLOTS];
  __shared__ float4 made[2][8];  // by turns, so that one barrier a set is enough
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, sets = width / 32, chunks = (groups + SPAN - 1) / SPAN;
  int next_set = blockIdx.x, next_value = warp, next_chunk = 0;
  start_after();
  const Ring ring(planes, bytes, barriers, groups);
  auto bring_next = [&](int slot) {
    if (next_set >= sets) return;
    const u32 gate = (u32)(next_set * 32 + next_value) * groups;
    ring.bring(slot, {gate, gate + (u32)width * groups}, next_chunk * SPAN);
    if (++next_chunk < chunks) return;
    next_chunk = 0;
    if ((next_value += WARPS) >= 32) next_value = warp, next_set += gridDim.x;
  };
#pragma unroll
  for (int slot = 0; slot < SLOTS; slot++) bring_next(slot);
  wait_before();
  bring_input({codes, scales}, groups);
  __syncthreads();
  float sums[2] = {};
  int slot = 0, parity = 0, turn = 0;
  for (int set = blockIdx.x, value = warp, chunk = 0; set < sets;) {
    Part part;
    ring.wait(slot, parity);
    load_part(part, ring.at(slot), chunk * SPAN, groups);
    __syncwarp();
    bring_next(slot);
    add_part(sums, part, chunk * SPAN, groups);
    if (++slot == SLOTS) slot = 0, parity ^= 1;
    if (++chunk < chunks) continue;
    const float gate = warp_sum(sums[0]), up = warp_sum(sums[1]);
    if (lane == 0) ((float*)made[turn])[value] = function_of<FUNCTION>(gate, Constants{}) * up;
    sums[0] = sums[1] = 0.0f;
    chunk = 0;
    if ((value += WARPS) < 32) continue;
    __syncthreads();
    if (warp == 0) {
      const float4 v = made[turn][lane & 7];
      if (lane < 8) *(float4*)(out.row(0) + set * 32 + 4 * lane) = v;
      store_bytes({made_codes, made_scales}, 0, sets, set * 8 + (lane & 7), v, lane < 8);
    }
    turn ^= 1;
    value = warp;
    set += gridDim.x;
  }
}
