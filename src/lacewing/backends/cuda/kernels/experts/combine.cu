// out = sum over the active experts of weight * x, in their order, then + add. Grid: width / THREADS, tokens.
//! early
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    combine(View x, View weights, View ids, View out, View add, int active, int width) {
  int i = blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
  start_after();
  wait_before();
  if (i >= width) return;
  float sum = 0.0f;
  for (int a = 0; a < active; a++) {
    if (ids.at && ids.ids(t)[a] < 0) continue;
    float y = x.row(t)[a * width + i];
    sum = weights.at ? fmaf(y, weights.row(t)[a], sum) : sum + y;
  }
  out.row(t)[i] = add.at ? sum + add.row(t)[i] : sum;
}
