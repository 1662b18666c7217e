// Of each part of each row of logits: its largest values with their ids, the largest, and the sum of exponentials above it. Masks and
// biases change which are the largest, not the sum. Grid: parts, rows.
// Not early: its blocks would crowd on the few multiprocessors that have room beside the product to logits.
//! WANTED 64
//! EACH 8
#include "rounds.cuh"

// `wishes` (rows, stride), or null: masked?, number of biases, mask, ids (ascending), `biases` places for biases
__device__ uint2 wished(uint2 value, const u32* wishes, int vocabulary, int biases) {
  if (value.y >= NOTHING) return value;
  if (wishes[0] && !(wishes[2 + (value.y >> 5)] >> (value.y & 31) & 1)) return nothing();
  const u32* ids = wishes + 2 + (vocabulary + 31) / 32;
  u32 low = 0, high = wishes[1];
  while (low < high) {
    u32 middle = (low + high) / 2;
    if (ids[middle] < value.y) low = middle + 1;
    else high = middle;
  }
  if (low < wishes[1] && ids[low] == value.y) {
    return make_uint2(__float_as_uint(__uint_as_float(value.x) + __uint_as_float(ids[biases + low])), value.y);
  }
  return value;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    best_parts(const float* logits, uint2* best, float2* totals, const u32* wishes, int vocabulary, int stride, int biases) {
  uint2 values[EACH];
  float top = NONE, sum = 0.0f;
  size_t at = (size_t)blockIdx.y * gridDim.x + blockIdx.x;
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    int i = blockIdx.x * EACH * THREADS + j * THREADS + threadIdx.x;
    values[j] = i < vocabulary ? judged(logits[(size_t)blockIdx.y * vocabulary + i], i) : nothing();
    top = fmaxf(top, __uint_as_float(values[j].x));
  }
  __shared__ float tops[WARP];
  top = warp_max(top);
  if (threadIdx.x % WARP == 0) tops[threadIdx.x / WARP] = top;
  __syncthreads();
  top = warp_max(tops[threadIdx.x % WARP % (THREADS / WARP)]);
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    if (values[j].y != NOTHING) sum += expf(__uint_as_float(values[j].x) - top);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) totals[at] = make_float2(top, sum);
  if (wishes) {
#pragma unroll
    for (int j = 0; j < EACH; j++) values[j] = wished(values[j], wishes + (size_t)blockIdx.y * stride, vocabulary, biases);
  }
  keep_largest<EACH, WANTED>(values, best + at * WANTED);
}
