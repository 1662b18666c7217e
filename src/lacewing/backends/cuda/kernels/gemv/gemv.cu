// x @ weight.T for a few tokens: a warp a row, its lanes the groups of the row by turns, BATCH tokens together. The sum of a token does
// not depend on the others. Grid: rows / warps, tokens / BATCH.
//! QUANT quants
//! BATCH 1 4
//! early
#include "ptx.cuh"
#include "values.cuh"
#include "outs.cuh"

// `by_rows`: of output rows, for logits
extern "C" __global__ void __launch_bounds__(THREADS)
    gemv(Step step, View x, Planes planes, Outs outs, const float* bias, int rows, int groups, int columns, int by_rows, float scale,
         float softcap) {
  start_after();
  wait_before();
  int row = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  int first = blockIdx.y * BATCH, count = by_rows ? step.output_count() : step.count();
  if (row >= rows) return;
  const float* from[BATCH];
  float sums[BATCH] = {};
#pragma unroll
  for (int b = 0; b < BATCH; b++) {
    int t = min(first + b, count - 1);
    from[b] = x.row(by_rows ? step.output(step.first_output() + t) : t);
  }
  for (int group = lane; group < groups; group += WARP) {
    float w[32];
    load_values(planes, (size_t)row * groups + group, w);
    int width = min(32, columns - group * 32);
#pragma unroll
    for (int b = 0; b < BATCH; b++) {
      const float* v = from[b] + group * 32;
      float sum = 0.0f;
      if (width == 32) {
#pragma unroll
        for (int i = 0; i < 32; i++) sum += w[i] * v[i];
      } else {
#pragma unroll
        for (int i = 0; i < 32; i++) sum += i < width ? w[i] * v[i] : 0.0f;
      }
      sums[b] += sum;
    }
  }
#pragma unroll
  for (int b = 0; b < BATCH; b++) {
    float y = warp_sum(sums[b]);
    if (lane == 0 && first + b < count) put(outs, first + b, row, finished(y, bias, row, scale, softcap));
  }
}
