// out = (x + add) * factor * weight, column by column; `add` is repeated every `period` columns. Grid: width / THREADS, tokens.
//! early
#include "ptx.cuh"

// `weights`: how many there are, 0, 1 or `period`
extern "C" __global__ void __launch_bounds__(THREADS)
    add_scale(View x, View add, View out, const float* weight, int width, int period, int weights, float factor) {
  start_after();
  wait_before();
  int i = blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
  if (i >= width) return;
  float y = x.row(t)[i];
  if (add.at) y += add.row(t)[i % period];
  y *= factor;
  out.row(t)[i] = weights ? y * weight[weights == 1 ? 0 : i % period] : y;
}
