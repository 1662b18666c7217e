// The largest of every EACH * THREADS of a row's values, in their order: `count` values a row. Grid: runs, rows.
// Not early, as `best_parts`.
//! WANTED 64
//! EACH 8
#include "rounds.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) best_all(const uint2* best, uint2* chosen, int count) {
  uint2 values[EACH];
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    int i = blockIdx.x * EACH * THREADS + j * THREADS + threadIdx.x;
    values[j] = i < count ? best[(size_t)blockIdx.y * count + i] : nothing();
  }
  keep_largest<EACH, WANTED>(values, chosen + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * WANTED);
}
