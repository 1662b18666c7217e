// Causal depthwise convolution of each column, token by token of a row, from its unit on, which it leaves in another one. A thread a
// column. Grid: width / THREADS, rows of the run.
//! threads 64
//! TAPS 2 3 4 5 6 7 8
//! early
#include "ptx.cuh"

// a unit: the last TAPS - 1 values of every column, oldest first
extern "C" __global__ void __launch_bounds__(THREADS)
    short_convolution(Step step, View x, View out, const float* weight, const float* bias, float* const* store, int width, int group) {
  start_after();
  wait_before();
  int column = blockIdx.x * THREADS + threadIdx.x, part = blockIdx.y;
  if (column >= width) return;
  int first = step.part_first(part), tokens = step.part_tokens(part), row = step.row(first);
  int before = step.unit_in(group, row);
  size_t size = (size_t)(TAPS - 1) * width;
  float seen[TAPS], taps[TAPS];
#pragma unroll
  for (int j = 0; j < TAPS; j++) taps[j] = weight[column * TAPS + j];
#pragma unroll
  for (int j = 0; j < TAPS - 1; j++) seen[j] = before < 0 ? 0.0f : (*store)[before * size + j * width + column];
  for (int t = first; t < first + tokens; t++) {
    seen[TAPS - 1] = x.row(t)[column];
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < TAPS; j++) sum += taps[j] * seen[j];
    out.row(t)[column] = bias ? sum + bias[column] : sum;
#pragma unroll
    for (int j = 0; j < TAPS - 1; j++) seen[j] = seen[j + 1];
  }
  float* after = *store + step.unit_out(group, row) * size;
#pragma unroll
  for (int j = 0; j < TAPS - 1; j++) after[j * width + column] = seen[j];
}
