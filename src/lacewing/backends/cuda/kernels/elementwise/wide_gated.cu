// As `gated` of whole rows, a multiple of four wide, and the result in the forms that products take. Grid: 1, tokens.
//! FUNCTION none silu gelu gelu_tanh relu2 sigmoid
//! EACH 1 2 4 8 16
//! threads 512
#include "forms.cuh"
#include "functions.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) wide_gated(View gate, View up, View out, int width, Forms forms) {
  start_after();  // it does not start early itself, see docs/cuda.md
  int t = blockIdx.y, quads = width / 4;
  const float4 *g = (const float4*)gate.row(t), *u = (const float4*)up.row(t);
  float4 v[EACH], w[EACH];
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    int i = threadIdx.x + e * THREADS;
    v[e] = w[e] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (i < quads) v[e] = g[i], w[e] = u[i];
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    int i = threadIdx.x + e * THREADS;
    if (i >= quads) continue;
    const Constants none_given = {};
    v[e] = make_float4(function_of<FUNCTION>(v[e].x, none_given) * w[e].x, function_of<FUNCTION>(v[e].y, none_given) * w[e].y,
                       function_of<FUNCTION>(v[e].z, none_given) * w[e].z, function_of<FUNCTION>(v[e].w, none_given) * w[e].w);
    ((float4*)out.row(t))[i] = v[e];
  }
  store_forms(forms, gridDim.y, t, quads, v);
}
