// g * sigmoid(alpha * g) * (u + 1) with g and u clamped. Grid: width / THREADS, tokens.
//! early
#include "ptx.cuh"
#include "functions.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) clamped(View gate, View up, View out, int width, float alpha, float limit) {
  start_after();
  wait_before();
  int i = blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
  if (i >= width) return;
  float g = gate.row(t)[i], u = up.row(t)[i];
  g = g > limit ? limit : g;
  u = u > limit ? limit : u < -limit ? -limit : u;
  out.row(t)[i] = g * f_sigmoid(alpha * g) * (u + 1.0f);
}
