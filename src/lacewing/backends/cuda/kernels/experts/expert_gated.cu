// The gate and the other linear of the chosen experts and the activation of both, for one token at a time: a block makes 32 values of an
// expert, a warp one at a time, as floats, as bytes, or both; what is not asked for is null. Parts of the id -1 are left.
// Grid: width / 32, active, tokens. Shared memory: as `gemv_bytes`.
//! QUANT coded F32 F16 BF16
//! FUNCTION none silu gelu gelu_tanh relu2 sigmoid clamped limited
//! early
#define ROWS 2
#define UNROLL 2
#include "chunks.cuh"
#include "gates.cuh"

// of an expert: `width` rows of each linear, one after the other, or `interleaved` by turns
struct Shape {
  int width, groups, columns, active, interleaved;
  float alpha, limit;
};

extern "C" __global__ void __launch_bounds__(THREADS)
    expert_gated(View x, u32* codes, uint2* scales, View ids, View factor, Planes planes, const float* bias, View out, u32* made_codes,
                 uint2* made_scales, Shape s) {
  __shared__ float4 made[8];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, units = UNITS(s.groups), a = blockIdx.y, t = blockIdx.z;
  int chunks = (units + 32 * UNROLL - 1) / (32 * UNROLL);
  start_after();
  wait_before();
  int expert = ids.ids(t)[a];
  if (expert < 0) return;
  auto row_of = [&](int value, int part) {
    int i = blockIdx.x * 32 + value;
    return (u32)expert * 2 * s.width + (s.interleaved ? 2 * i + part : part * s.width + i);
  };
  u32 first[ROWS];
  auto begin = [&](int value) { first[0] = row_of(value, 0) * units, first[1] = row_of(value, 1) * units; };
  Chunk now, next;
  begin(warp);
  load_chunk(now, planes, first, 0, units);
#ifdef EIGHTS
  bring_input(x.row(t), s.columns, units);
#else
  bring_input({codes, scales}, t, units);
#endif
  float by = factor.at ? factor.row(t)[a] : 1.0f;
  __syncthreads();
  float sums[ROWS] = {};
  for (int value = warp, chunk = 0; value < 32;) {
    bool last = chunk + 1 == chunks;
    int next_value = last ? value + WARPS : value, next_chunk = last ? 0 : chunk + 1;
    if (last) begin(next_value);
    if (next_value < 32) load_chunk(next, planes, first, next_chunk * 32 * UNROLL, units);
    add_chunk(sums, now, chunk * 32 * UNROLL, units);
    if (last) {
      float gate = warp_sum(sums[0]) * by, up = warp_sum(sums[1]) * by;
      if (bias) gate += bias[row_of(value, 0)], up += bias[row_of(value, 1)];
      if (lane == 0) ((float*)made)[value] = gate_of<FUNCTION>(gate, up, s.alpha, s.limit);
      sums[0] = sums[1] = 0.0f;
    }
    now = next;
    value = next_value;
    chunk = next_chunk;
  }
  __syncthreads();
  if (warp) return;
  float4 v = made[lane & 7];
  if (out.at && lane < 8) *(float4*)(out.row(t) + a * s.width + blockIdx.x * 32 + 4 * lane) = v;
  if (made_codes) store_bytes({made_codes, made_scales}, t * s.active + a, s.width / 32, blockIdx.x * 8 + (lane & 7), v, lane < 8);
}
