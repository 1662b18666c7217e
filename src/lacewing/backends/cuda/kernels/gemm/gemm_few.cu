// x @ weight.T for a few tokens on tensor cores: the warps of a block make the same 16 rows for 8 NT tokens, each with every so-many-th 128
// columns, and add up through shared memory; the activations (`half_rows.cu`) come straight from memory. Grid: tiles of rows, tiles of tokens.
//! arch 80
//! QUANT coded F16 BF16
//! NT 1 2
//! threads 512
//! early
#define MT 1
#define GROUPED 0
#include "tensor.cuh"

#define WARPS (THREADS / WARP)
#define TOKENS (8 * NT)

extern "C" __global__ void __launch_bounds__(THREADS)
    gemm_few(Step step, const uint4* x, const float* x_scales, Planes planes, Outs outs, const float* bias, int rows, int groups, int by_rows,
             float scale, float softcap) {
  __shared__ float parts[WARPS][TOKENS][16];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane >> 2, t = lane & 3, blocks = (groups + 3) / 4;
  int first_row = blockIdx.x * 16, first_token = blockIdx.y * TOKENS, count = by_rows ? step.output_count() : step.count();
  u32 first[2] = {(u32)min(first_row + g, rows - 1) * groups, (u32)min(first_row + 8 + g, rows - 1) * groups};
  start_after();
  Weights now, next;
  int block = warp;
  if (block < blocks) load_weights(now, planes, first, block * PARTS, groups);
  wait_before();
  const uint4* from[NT];
#pragma unroll
  for (int n = 0; n < NT; n++) from[n] = x + (size_t)min(first_token + n * 8 + g, count - 1) * blocks * 16 + t;
  const Masks masks = opaque_masks();
  float sums[NT][4] = {};
  for (; block < blocks; block += WARPS) {
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
      int following = part + 1 < PARTS ? block * PARTS + part + 1 : (block + WARPS) * PARTS;
      if (following < blocks * PARTS) load_weights(next, planes, first, following, groups);
      Scale scales[2] = {scale_of(now.raw[0]), scale_of(now.raw[1])};
      uint4 b[UNITS][NT];
#pragma unroll
      for (int u = 0; u < UNITS; u++) {
#pragma unroll
        for (int n = 0; n < NT; n++) b[u][n] = from[n][block * 16 + (part * UNITS + u) * 4];
      }
#pragma unroll
      for (int u = 0; u < UNITS; u++) {
        Fragments f;
        unpack(f, now, scales, part * UNITS + u, masks);
#pragma unroll
        for (int n = 0; n < NT; n++) {
          mma(sums[n], f.v[0][0], f.v[1][0], f.v[0][1], f.v[1][1], b[u][n].x, b[u][n].y);
          mma(sums[n], f.v[0][2], f.v[1][2], f.v[0][3], f.v[1][3], b[u][n].z, b[u][n].w);
        }
      }
      now = next;
    }
  }
#pragma unroll
  for (int n = 0; n < NT; n++) {
#pragma unroll
    for (int c = 0; c < 4; c++) parts[warp][n * 8 + 2 * t + (c & 1)][(c >> 1) * 8 + g] = sums[n][c];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < TOKENS * 16; i += THREADS) {
    int token = first_token + i / 16, row = first_row + i % 16;
    if (token >= count || row >= rows) continue;
    float y = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) y += parts[w][i / 16][i % 16];
    put(outs, token, row, finished(y * (x_scales[token] * (1.0f / WEIGHT_SCALE)), bias, row, scale, softcap));
  }
}
