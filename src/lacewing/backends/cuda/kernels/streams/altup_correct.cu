// x_i += (1 + c[i]) * (new - x_active), with the old x_active; c = weight @ tanh(scale * router). A thread a column of all streams.
// Grid: width / THREADS, tokens.
//! threads 128
//! STREAMS 2 3 4 5 6 7 8
//! early
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    altup_correct(View x, View router, View fresh, const float* weight, int width, int active, float scale) {
  start_after();
  wait_before();
  int d = blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
  if (d >= width) return;
  float innovation = fresh.row(t)[d] - x.row(t)[active * width + d];
  for (int i = 0; i < STREAMS; i++) {
    float c = 0.0f;
    for (int k = 0; k < STREAMS; k++) c += weight[i * STREAMS + k] * tanhf(scale * router.row(t)[k]);
    x.row(t)[i * width + d] += (1.0f + c) * innovation;
  }
}
