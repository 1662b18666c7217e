// x_i += sum over j of c[i * S + j] * x_j, of the old values; c = weight @ tanh(scale * router). A thread a column of all streams.
// Grid: width / THREADS, tokens.
//! threads 128
//! STREAMS 2 3 4 5 6 7 8
//! early
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) altup_predict(View x, View router, const float* weight, int width, float scale) {
  start_after();
  wait_before();
  int d = blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
  if (d >= width) return;
  float old[STREAMS], routed[STREAMS];
  for (int i = 0; i < STREAMS; i++) {
    old[i] = x.row(t)[i * width + d];
    routed[i] = tanhf(scale * router.row(t)[i]);
  }
  for (int i = 0; i < STREAMS; i++) {
    float sum = 0.0f;
    for (int j = 0; j < STREAMS; j++) {
      float c = 0.0f;
      for (int k = 0; k < STREAMS; k++) c += weight[(i * STREAMS + j) * STREAMS + k] * routed[k];
      sum += c * old[j];
    }
    x.row(t)[i * width + d] = old[i] + sum;
  }
}
