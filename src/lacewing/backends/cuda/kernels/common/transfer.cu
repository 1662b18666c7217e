// Values of a view to (`out`) or from a buffer that the host reads and writes: view after view of a stage, each (T, width).
// Grid: width / THREADS, tokens.
//! DIRECTION in out
//! early
#include "ptx.cuh"

enum Direction { in, out };

extern "C" __global__ void __launch_bounds__(THREADS) transfer(Step step, View view, float* buffer, int before, int width) {
  start_after();
  wait_before();
  int i = blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
  if (i >= width) return;
  float* at = buffer + (size_t)before * step.count() + (size_t)t * width + i;
  float* value = view.row(t) + i;
  if (DIRECTION == out) *at = *value;
  else *value = *at;
}
