// min(silu(g), limit) * u, with u within the limit on both sides. Grid: width / THREADS, tokens.
//! early
#include "ptx.cuh"
#include "functions.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) limited(View gate, View up, View out, int width, float limit) {
  start_after();
  wait_before();
  int i = blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
  if (i >= width) return;
  float g = gate.row(t)[i], u = up.row(t)[i];
  g = function_of<silu>(g, Constants{});  // a NaN stays one
  g = g > limit ? limit : g;
  u = u > limit ? limit : u < -limit ? -limit : u;
  out.row(t)[i] = g * u;
}
