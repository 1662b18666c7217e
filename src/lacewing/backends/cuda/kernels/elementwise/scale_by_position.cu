// x *= 1 + beta * ln(1 + floor((position + offset) / length)), in place. Grid: width / THREADS, tokens.
//! early
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    scale_by_position(Step step, View x, int width, float beta, int length, int offset) {
  start_after();
  wait_before();
  int i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= width) return;
  u32 steps = ((u32)step.position(blockIdx.y) + (u32)offset) / (u32)length;
  x.row(blockIdx.y)[i] *= 1.0f + beta * log1pf((float)steps);
}
