// out = FUNCTION(x @ G.T) * (x @ U.T) for one token, as floats and as bytes: a block makes the same number of values as the others, a warp
// one at a time, of a row of G and one of U. The rows of G stand before those of U. `counters` are zeros before and after.
// Grid: blocks of at most MOST values. Shared memory: as `gemv_bytes`.
//! QUANT coded
//! FUNCTION none silu gelu gelu_tanh relu2 sigmoid
//! WHOLE 0 1
//! BLOCKS 2 3 4
//! early
#define ROWS 2
#define UNROLL 2
#define MOST 128
#include "chunks.cuh"
#include "functions.cuh"

// Values of a block, and how many of each group of 32 there are: who makes a group's last value makes its bytes.
struct Made {
  float values[MOST];
  u32 counts[MOST / 32 + 2];
};

// Whether the whole group is there, of which this block makes `here` values; `v`: the lane's value of it.
DEVICE bool completed(Made& made, const View& out, u32* counters, int begin, int here, int value, float y, float& v) {
  const int lane = threadIdx.x % WARP, group = value / 32;
  u32 before = 0;
  if (lane == 0) {
    made.values[value - begin] = out.row(0)[value] = y;
    here < 32 ? __threadfence() : __threadfence_block();
    before = atomicAdd(&made.counts[group - begin / 32], 1);
    if (here < 32 && before + 1 == here) {  // other blocks make the others
      before = atomicAdd(counters + group, here) + here;
      if (before == 32) counters[group] = 0;
      before = before == 32 ? here - 1 : here;
      __threadfence();
    }
  }
  if (__shfl_sync(ALL, before, 0) + 1 != here) return false;
  __threadfence_block();
  v = here == 32 ? ((volatile float*)made.values)[group * 32 + lane - begin] : __ldcg(out.row(0) + group * 32 + lane);
  return true;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    gemv_gated(u32* codes, uint2* scales, Planes planes, PlaneBytes bytes, View out, u32* made_codes, uint2* made_scales, u32* counters,
               int width, int groups) {
  __shared__ Made made;
  const int begin = (long long)width * blockIdx.x / gridDim.x, end = (long long)width * (blockIdx.x + 1) / gridDim.x;
  const int chunks = (groups + 32 * UNROLL - 1) / (32 * UNROLL);
  int value = begin + threadIdx.x / WARP, chunk = 0;
  u32 first[2];
  auto bring = [&](Chunk& c, int value, int chunk) {
    first[0] = (u32)value * groups, first[1] = first[0] + (u32)width * groups;
    load_chunk(c, planes, bytes, first, chunk * 32 * UNROLL, groups);
  };
  start_after();
  Chunk even, odd;
  if (value < end) bring(even, value, 0);
  if (threadIdx.x < MOST / 32 + 2) made.counts[threadIdx.x] = 0;
  wait_before();
  bring_input({codes, scales}, 0, groups);
  __syncthreads();
  float sums[2] = {};
  auto turn = [&](const Chunk& now, Chunk& next) {
    const bool last = chunk + 1 == chunks;
    const int next_value = last ? value + WARPS : value, next_chunk = last ? 0 : chunk + 1;
    if (next_value < end) bring(next, next_value, next_chunk);
    add_chunk(sums, now, chunk * 32 * UNROLL, groups);
    if (last) {
      const float gate = warp_sum(sums[0]), up = warp_sum(sums[1]), y = function_of<FUNCTION>(gate, Constants{}) * up;
      const int group = value / 32, here = min(end, group * 32 + 32) - max(begin, group * 32);
      float v;
      if (completed(made, out, counters, begin, here, value, y, v)) store_group({made_codes, made_scales}, group, v);
      sums[0] = sums[1] = 0.0f;
    }
    value = next_value;
    chunk = next_chunk;
  };
  while (value < end) {  // two chunks by turns, so that nothing is moved from one to the other
    turn(even, odd);
    if (value < end) turn(odd, even);
  }
}
