// x @ weight.T for a few tokens on tensor cores: the warps of a block make the same 16 rows for 8 NT tokens, each with every so-many-th 128
// columns, and add up through shared memory; then the block goes on to other rows, whose first weights are under way by then. The activations
// (`half_rows.cu`) come straight from memory. Grid: as many blocks as run at a time, tiles of tokens.
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

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    gemm_few(Step step, const uint4* x, const float* x_scales, Planes planes, Outs outs, const float* bias, int rows, int groups, int by_rows,
             float scale, float softcap) {
  __shared__ float parts[2][WARPS][TOKENS][16];  // by turns, so that one barrier a tile is enough
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane >> 2, t = lane & 3, blocks = (groups + 3) / 4, tiles = (rows + 15) / 16;
  int first_token = blockIdx.y * TOKENS, count = by_rows ? step.output_count() : step.count();
  u32 first[2];
  auto begin = [&](int tile) {
    first[0] = (u32)min(tile * 16 + g, rows - 1) * groups;
    first[1] = (u32)min(tile * 16 + 8 + g, rows - 1) * groups;
  };
  start_after();
  Weights now, next;
  begin(blockIdx.x);
  if (warp < blocks) load_weights(now, planes, first, warp * PARTS, groups);
  wait_before();
  const uint4* from[NT];
#pragma unroll
  for (int n = 0; n < NT; n++) from[n] = x + (size_t)min(first_token + n * 8 + g, count - 1) * blocks * 16 + t;
  const Masks masks = opaque_masks();
  for (int tile = blockIdx.x, turn = 0; tile < tiles; tile += gridDim.x, turn ^= 1) {
    float sums[NT][4] = {};
    for (int block = warp; block < blocks; block += WARPS) {
#pragma unroll
      for (int part = 0; part < PARTS; part++) {
        int following = part + 1 < PARTS ? block * PARTS + part + 1 : (block + WARPS) * PARTS;
        if (following >= blocks * PARTS) {
          following = warp * PARTS;
          begin(tile + gridDim.x);  // rows behind the last one: the last one's weights
        }
        load_weights(next, planes, first, following, groups);
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
      for (int c = 0; c < 4; c++) parts[turn][warp][n * 8 + 2 * t + (c & 1)][(c >> 1) * 8 + g] = sums[n][c];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TOKENS * 16; i += THREADS) {
      int token = first_token + i / 16, row = tile * 16 + i % 16;
      if (token >= count || row >= rows) continue;
      float y = 0.0f;
#pragma unroll
      for (int w = 0; w < WARPS; w++) y += parts[turn][w][i / 16][i % 16];
      put(outs, token, row, finished(y * (x_scales[token] * (1.0f / WEIGHT_SCALE)), bias, row, scale, softcap));
    }
  }
}
