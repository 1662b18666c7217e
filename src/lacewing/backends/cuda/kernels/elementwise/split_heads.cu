// One part of every head of x, side by side. Grid: heads * part / THREADS, tokens.
//! early
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    split_heads(View x, View out, int heads, int width, int start, int part) {
  start_after();
  wait_before();
  int i = blockIdx.x * THREADS + threadIdx.x;
  if (i < heads * part) out.row(blockIdx.y)[i] = x.row(blockIdx.y)[i / part * width + start + i % part];
}
