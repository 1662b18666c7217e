// The largest of every EACH * THREADS of a row's values, in their order: `count` values a row. Grid: runs, rows.
//! WANTED 64
//! EACH 8
//! early
#include "ptx.cuh"
#include "rounds.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) best_all(const uint2* best, uint2* chosen, int count) {
  start_after();
  wait_before();
  uint2 values[EACH];
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    int i = blockIdx.x * EACH * THREADS + j * THREADS + threadIdx.x;
    values[j] = i < count ? best[(size_t)blockIdx.y * count + i] : nothing();
  }
  keep_largest<EACH, WANTED>(values, chosen + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * WANTED);
}
