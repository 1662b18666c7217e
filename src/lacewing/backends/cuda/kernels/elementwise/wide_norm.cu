// As `row_norm` of one head, a multiple of four wide, and the result in the forms that products take. A thread keeps up to EACH fours of the
// row in registers, so that the row is read once. Grid: 1, tokens.
//! EACH 1 2 4 8 16
//! threads 512
#include "forms.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    wide_norm(View x, View add, View out, const float* weight, const float* bias, int width, float scale, float eps, float offset, int centred,
              Forms forms) {
  start_after();  // it does not start early itself, see docs/cuda.md
  int t = blockIdx.y, quads = width / 4;
  float4 *from = (float4*)x.row(t), *to = (float4*)out.row(t), v[EACH], w[EACH];
  const float4* more = (const float4*)add.row(t);
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    int i = threadIdx.x + e * THREADS;
    w[e] = weight && i < quads ? ((const float4*)weight)[i] : make_float4(1.0f - offset, 1.0f - offset, 1.0f - offset, 1.0f - offset);
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    int i = threadIdx.x + e * THREADS;
    v[e] = i < quads ? from[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
  if (add.at) {
    float4 m[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      int i = threadIdx.x + e * THREADS;
      m[e] = i < quads ? more[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      int i = threadIdx.x + e * THREADS;
      v[e] = make_float4(v[e].x + scale * m[e].x, v[e].y + scale * m[e].y, v[e].z + scale * m[e].z, v[e].w + scale * m[e].w);
      if (i < quads) from[i] = v[e];
    }
  }
  float total = 0.0f, mean = 0.0f;
  if (centred) {
#pragma unroll
    for (int e = 0; e < EACH; e++) total += (v[e].x + v[e].y) + (v[e].z + v[e].w);
    mean = block_sum(total) / width;
    total = 0.0f;
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    if (threadIdx.x + e * THREADS >= quads) continue;
    v[e].x -= mean, v[e].y -= mean, v[e].z -= mean, v[e].w -= mean;
    total += v[e].x * v[e].x + v[e].y * v[e].y + (v[e].z * v[e].z + v[e].w * v[e].w);
  }
  float size = 1.0f / sqrtf(block_sum(total) / width + eps);
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    int i = threadIdx.x + e * THREADS;
    if (i >= quads) continue;
    v[e] = make_float4(v[e].x * size * (w[e].x + offset), v[e].y * size * (w[e].y + offset), v[e].z * size * (w[e].z + offset),
                       v[e].w * size * (w[e].w + offset));
    if (bias) {
      float4 b = ((const float4*)bias)[i];
      v[e].x += b.x, v[e].y += b.y, v[e].z += b.z, v[e].w += b.w;
    }
    to[i] = v[e];
  }
  store_forms(forms, gridDim.y, t, quads, v);
}
