// Activations as bytes, for `gemv_bytes`. `by_rows`: those of output rows. Columns are whole groups of 32. Grid: 1, tokens.
//! early
#include "bytes.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) quantise(Step step, View x, u32* codes, uint2* scales, int groups, int by_rows) {
  start_after();
  wait_before();
  int t = blockIdx.y;
  const float* from = x.row(by_rows ? step.output(step.first_output() + t) : t);
  for (int i = threadIdx.x; i < (groups * 8 + 31) / 32 * 32; i += THREADS) {  // whole warps
    bool on = i < groups * 8;
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (on) v = make_float4(from[4 * i], from[4 * i + 1], from[4 * i + 2], from[4 * i + 3]);
    store_bytes({codes, scales}, t, groups, i, v, on);
  }
}
