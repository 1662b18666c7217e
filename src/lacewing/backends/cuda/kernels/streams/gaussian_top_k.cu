// x = max(0, x - mean(x) - cutoff * std(x)), in place. Grid: 1, tokens.
//! early
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) gaussian_top_k(View x, int width, float cutoff) {
  start_after();
  wait_before();
  float *values = x.row(blockIdx.y), sum = 0.0f;
  for (int i = threadIdx.x; i < width; i += THREADS) sum += values[i];
  float mean = block_sum(sum) / width;
  sum = 0.0f;
  for (int i = threadIdx.x; i < width; i += THREADS) sum += (values[i] - mean) * (values[i] - mean);
  float least = mean + cutoff * sqrtf(block_sum(sum) / width);
  for (int i = threadIdx.x; i < width; i += THREADS) {
    float v = values[i] - least;
    values[i] = v < 0.0f ? 0.0f : v;
  }
}
