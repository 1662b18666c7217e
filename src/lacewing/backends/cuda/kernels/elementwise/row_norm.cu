// RMS norm or LayerNorm of each head of x, to which scale * add is added first, in place. Grid: heads, tokens.
//! threads 256
//! early
#include "ptx.cuh"

// `each`: heads have weights of their own
extern "C" __global__ void __launch_bounds__(THREADS)
    row_norm(View x, View add, View out, const float* weight, const float* bias, int width, float scale, float eps, float offset, int each,
         int centred) {
  start_after();
  wait_before();
  int first = blockIdx.x * width, t = blockIdx.y;
  float *from = x.row(t) + first, *to = out.row(t) + first;
  float total = 0.0f;
  if (add.at) {
    const float* more = add.row(t) + first;
    for (int i = threadIdx.x; i < width; i += THREADS) from[i] += scale * more[i];
  }
  float mean = 0.0f;
  if (centred) {
    for (int i = threadIdx.x; i < width; i += THREADS) total += from[i];
    mean = block_sum(total) / width;
    total = 0.0f;
  }
  for (int i = threadIdx.x; i < width; i += THREADS) {
    float v = from[i] - mean;
    total += v * v;
  }
  float size = 1.0f / sqrtf(block_sum(total) / width + eps);
  for (int i = threadIdx.x; i < width; i += THREADS) {
    float v = (from[i] - mean) * size;
    if (weight) v *= weight[each ? first + i : i] + offset;
    to[i] = bias ? v + bias[i] : v;
  }
}
