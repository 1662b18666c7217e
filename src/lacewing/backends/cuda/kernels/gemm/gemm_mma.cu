// x @ weight.T for many tokens on tensor cores: float16 products, float32 sums. A block makes a tile of 128 rows and 8 NT tokens, a warp 32
// rows of it; weights go from memory to registers, one part ahead of their use, activations (`half_rows.cu`) through pieces of 128 columns of
// shared memory. Grid: tiles of tokens, tiles of rows, splits of the columns. Shared memory: STAGES * 256 bytes a token of the tile.
//! arch 80
//! QUANT coded F16 BF16
//! NT 4 8 16
//! GROUPED 0 1
//! threads 128
//! early
#define MT 2
#define STAGES 3
#include "tensor.cuh"

#define TOKENS (8 * NT)
#define STAGE_BYTES (TOKENS * 256)

extern __shared__ uint4 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    gemm_mma(Step step, const uint4* x, const float* x_scales, Planes planes, Outs outs, const float* bias, int rows, int groups, int by_rows,
             float scale, float softcap, float4* partial, u32* counters, const int* list, View factor, Experts experts, int atoms) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane >> 2, t = lane & 3, blocks = (groups + 3) / 4;
  int begin = (long long)blocks * blockIdx.z / gridDim.z, end = (long long)blocks * (blockIdx.z + 1) / gridDim.z;
  auto row_of = [&](int i) { return (int)(blockIdx.y * 128) + warp * 32 + (i >> 1) * 16 + (i & 1) * 8 + g; };
  TokenTile tile;
  u32 first[2 * MT];
  Weights now, next;
  start_after();
#if GROUPED
  wait_before();
#endif
  if (!token_tile(tile, TOKENS, by_rows ? step.output_count() : step.count(), list, experts)) return;
#pragma unroll
  for (int i = 0; i < 2 * MT; i++) {
    first[i] = ((u32)tile.expert * rows + min(row_of(i), rows - 1)) * groups;
    keep(first[i]);
  }
  load_weights(now, planes, first, begin * PARTS, groups);
#if !GROUPED
  wait_before();
#endif
  u32 base = shared_address(shared);
  auto bring = [&](int block) {
    if (block < end) {
      u32 stage = base + (block - begin) % STAGES * STAGE_BYTES;
#pragma unroll
      for (int i = threadIdx.x; i < TOKENS * 16; i += THREADS) {
        int token = i >> 4, chunk = i & 15, row = tile.x_row + min(token, tile.count - 1);
        copy_async(stage + token * 256 + ((chunk ^ (token & 1) << 2) << 4), x + ((size_t)row * blocks + block) * 16 + chunk);
      }
    }
    copies_commit();
  };
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) bring(begin + i);

  const Masks masks = opaque_masks();
  float sums[MT][NT][4] = {};
  for (int block = begin; block < end; block++) {
    copies_wait<STAGES - 2>();
    __syncthreads();
    bring(block + STAGES - 1);
    const uint4* stage = shared + (block - begin) % STAGES * (STAGE_BYTES / 16) + g * 16;
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
      if (block * PARTS + part + 1 < end * PARTS) load_weights(next, planes, first, block * PARTS + part + 1, groups);
      Scale scales[2 * MT];
#pragma unroll
      for (int i = 0; i < 2 * MT; i++) scales[i] = scale_of(now.raw[i]);
#pragma unroll
      for (int unit = part * UNITS; unit < (part + 1) * UNITS; unit++) {
        Fragments f;
        unpack(f, now, scales, unit, masks);
#pragma unroll
        for (int n = 0; n < NT; n++) {
          uint4 b = stage[n * 128 + ((unit * 4 + t) ^ (g & 1) << 2)];
#pragma unroll
          for (int m = 0; m < MT; m++) {
            u32(&low)[4] = f.v[2 * m], (&high)[4] = f.v[2 * m + 1];
            mma(sums[m][n], low[0], high[0], low[1], high[1], b.x, b.y);
            mma(sums[m][n], low[2], high[2], low[3], high[3], b.z, b.w);
          }
        }
      }
      now = next;
    }
  }
  copies_wait<0>();
  if (!joined<MT * NT>([&](int i) -> float* { return sums[i / NT][i % NT]; }, partial, counters)) return;
#pragma unroll
  for (int i = 0; i < 2 * MT; i++) {
    if (row_of(i) >= rows) continue;
    Target target = target_of(outs, bias, row_of(i), rows, tile, experts);
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
      for (int c = 0; c < 2; c++) {
        int column = n * 8 + 2 * t + c;
        if (column >= tile.count) continue;
        float y = sums[i >> 1][n][2 * (i & 1) + c] * (x_scales[tile.x_row + column] * (1.0f / WEIGHT_SCALE));
        store_result(target, y, column, tile, experts, factor, scale, softcap);
      }
    }
  }
}
