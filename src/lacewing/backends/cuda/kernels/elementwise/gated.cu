// out = FUNCTION(gate) * up, or FUNCTION(gate) without up; each value of the gate for `part` values. Grid: width / THREADS, tokens.
//! FUNCTION none silu gelu gelu_tanh relu2 sigmoid softplus xielu
//! early
#include "ptx.cuh"
#include "functions.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) gated(View gate, View up, View out, int width, int part, Constants constants) {
  start_after();
  wait_before();
  int i = blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
  if (i >= width) return;
  float y = function_of<FUNCTION>(gate.row(t)[i / part], constants);
  out.row(t)[i] = up.at ? y * up.row(t)[i] : y;
}
