// A matrix for each head, a warp an output; what lies behind the inputs of a head is copied. Grid: (outputs + rest) / warps, heads, tokens.
//! QUANT quants
//! early
#include "ptx.cuh"
#include "values.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    head_linear(View x, Planes planes, View out, int outputs, int inputs, int groups, int rest) {
  start_after();
  wait_before();
  int i = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP, head = blockIdx.y, t = blockIdx.z;
  if (i >= outputs + rest) return;
  const float* from = x.row(t) + (size_t)head * (inputs + rest);
  float* to = out.row(t) + (size_t)head * (outputs + rest) + i;
  if (i >= outputs) {
    if (lane == 0) *to = from[inputs + i - outputs];
    return;
  }
  float sum = 0.0f;
  for (int group = lane; group < groups; group += WARP) {
    float w[32];
    load_values(planes, ((size_t)head * outputs + i) * groups + group, w);
    int width = min(32, inputs - group * 32);
#pragma unroll
    for (int c = 0; c < 32; c++) sum += c < width ? w[c] * from[group * 32 + c] : 0.0f;
  }
  sum = warp_sum(sum);
  if (lane == 0) *to = sum;
}
