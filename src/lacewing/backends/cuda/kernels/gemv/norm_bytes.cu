// As `row_norm` of one head, a multiple of 32 wide, and the results as bytes. Grid: 1, tokens.
//! early
//! threads 512
#include "bytes.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    norm_bytes(View x, View add, View out, const float* weight, const float* bias, int width, float scale, float eps, float offset, int each,
               int centred, u32* codes, uint2* scales) {
  start_after();
  wait_before();
  int t = blockIdx.y, quads = width / 4;
  float4 *from = (float4*)x.row(t), *to = (float4*)out.row(t);
  float total = 0.0f, mean = 0.0f;
  if (add.at) {
    const float4* more = (const float4*)add.row(t);
    for (int i = threadIdx.x; i < quads; i += THREADS) {
      float4 v = from[i], m = more[i];
      from[i] = make_float4(v.x + scale * m.x, v.y + scale * m.y, v.z + scale * m.z, v.w + scale * m.w);
    }
  }
  if (centred) {
    for (int i = threadIdx.x; i < quads; i += THREADS) total += (from[i].x + from[i].y) + (from[i].z + from[i].w);
    mean = block_sum(total) / width;
    total = 0.0f;
  }
  for (int i = threadIdx.x; i < quads; i += THREADS) {
    float4 v = from[i];
    v.x -= mean, v.y -= mean, v.z -= mean, v.w -= mean;
    total += v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w);
  }
  float size = 1.0f / sqrtf(block_sum(total) / width + eps);
  for (int i = threadIdx.x; i < (quads + 31) / 32 * 32; i += THREADS) {  // whole warps
    bool on = i < quads;
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (on) {
      v = from[i];
      float4 w = weight ? ((const float4*)weight)[i] : make_float4(1.0f - offset, 1.0f - offset, 1.0f - offset, 1.0f - offset);
      v.x = (v.x - mean) * size * (w.x + offset), v.y = (v.y - mean) * size * (w.y + offset);
      v.z = (v.z - mean) * size * (w.z + offset), v.w = (v.w - mean) * size * (w.w + offset);
      if (bias) {
        float4 b = ((const float4*)bias)[i];
        v.x += b.x, v.y += b.y, v.z += b.z, v.w += b.w;
      }
      to[i] = v;
    }
    store_bytes({codes, scales}, t, width / 32, i, v, on);
  }
}
