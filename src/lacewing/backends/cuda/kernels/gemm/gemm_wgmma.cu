// As `gemm_mma`, by warpgroup products of Hopper: a block of two warpgroups makes a tile of 128 rows and N tokens. A warpgroup unpacks weights
// in its registers while the tensor cores work on those unpacked before; the copy engine brings activations to shared memory, as they stand.
//! arch 90a
//! QUANT coded F16 BF16
//! N 32 64 128
//! GROUPED 0 1
//! early
#define MT 1
#include "tensor.cuh"
#include "wgmma.cuh"

// Few tokens leave little work between two loads: then more of them are under way, of activations and of weights.
#define STAGES (N == 32 ? 6 : N == 64 ? 4 : 3)
#define RING (PARTS > 1 ? 2 : N == 32 ? 4 : N == 64 ? 3 : 2)  // parts of weights in registers
// Parts that are loaded together: the assembler has threads wait for all loads at once, not for the oldest ones alone.
#define TOGETHER (RING == 4 ? 2 : 1)
#define AHEAD (RING - TOGETHER)
#define ROUND (PARTS > 1 ? 1 : RING)  // blocks of columns until the ring is where it was

#define PIECE_BYTES (N * 128)  // 64 columns
#define STAGE_BYTES (2 * PIECE_BYTES)

extern __shared__ __align__(1024) uint4 shared[];

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    gemm_wgmma(Step step, const uint4* x, const float* x_scales, Planes planes, Outs outs, const float* bias, int rows, int groups, int by_rows,
               float scale, float softcap, float4* partial, u32* counters, const int* list, View factor, Experts experts, int atoms) {
  __shared__ u64 barriers[STAGES];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = lane & 3, blocks = (groups + 3) / 4;
  int begin = (long long)blocks * blockIdx.z / gridDim.z, end = (long long)blocks * (blockIdx.z + 1) / gridDim.z;
  auto row_of = [&](int i) { return (int)(blockIdx.y * 128) + warp * 16 + i * 8 + (lane >> 2); };
  TokenTile tile;
  u32 first[2];
  Weights ring[RING];
  start_after();
#if GROUPED
  wait_before();
  if (!token_tile(tile, N, 0, list, experts)) return;
#else
  tile.expert = 0;
#endif
#pragma unroll
  for (int i = 0; i < 2; i++) {
    first[i] = ((u32)tile.expert * rows + min(row_of(i), rows - 1)) * groups;
    keep(first[i]);
  }
#pragma unroll
  for (int i = 0; i < AHEAD; i++) {
    if (begin * PARTS + i < end * PARTS) load_weights(ring[i], planes, first, begin * PARTS + i, groups);
  }
  u32 base = shared_address(shared), barrier = shared_address(barriers);
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 0; i < STAGES; i++) barrier_begin(barrier + 8 * i);
  }
#if !GROUPED
  wait_before();
  if (!token_tile(tile, N, by_rows ? step.output_count() : step.count(), list, experts)) return;
#endif
  __syncthreads();
  const char* from = (const char*)x + (size_t)tile.x_row * 128;
  auto bring = [&](int block) {
    if (threadIdx.x == 0 && block < end) {
      int stage = (block - begin) % STAGES;
      barrier_expect(barrier + 8 * stage, STAGE_BYTES);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        copy_piece(base + stage * STAGE_BYTES + h * PIECE_BYTES, from + (size_t)(2 * block + h) * atoms * 1024, PIECE_BYTES, barrier + 8 * stage);
      }
    }
  };
#pragma unroll
  for (int i = 0; i < STAGES - 2; i++) bring(begin + i);

  const Masks masks = opaque_masks();
  Sums<N> sums = {};
  Fragments f[2] = {};
  for (int block = begin, stage = 0, parity = 0; block < end;) {
#pragma unroll
    for (int round = 0; round < ROUND; round++, block++) {
      if (block >= end) break;
      __syncthreads();
      bring(block + STAGES - 2);  // in place of one whose products have ended: at most those of the last unit are under way
      barrier_wait(barrier + 8 * stage, parity);
      u64 tokens = tile_descriptor(base + stage * STAGE_BYTES);
#pragma unroll
      for (int part = 0; part < PARTS; part++) {
        const Weights& now = ring[(round + part) % RING];
#pragma unroll
        for (int i = AHEAD; i < AHEAD + TOGETHER && (round + part) % TOGETHER == 0; i++) {
          if (block * PARTS + part + i < end * PARTS) load_weights(ring[(round + part + i) % RING], planes, first, block * PARTS + part + i, groups);
        }
        Scale scales[2] = {scale_of(now.raw[0]), scale_of(now.raw[1])};
#pragma unroll
        for (int unit = part * UNITS; unit < (part + 1) * UNITS; unit++) {
          Fragments& mine = f[unit & 1];
          unpack(mine, now, scales, unit, masks);
          u32(&low)[4] = mine.v[0], (&high)[4] = mine.v[1];
          u64 at = tokens + (unit >> 1) * (PIECE_BYTES >> 4) + (unit & 1) * 4;
          wgmma_fence();
          wgmma(sums, low[0], high[0], low[1], high[1], at);
          wgmma(sums, low[2], high[2], low[3], high[3], at + 2);
          wgmma_commit();
          wgmma_wait<1>();
          // those before have ended, and what they read may be unpacked anew
#pragma unroll
          for (int j = 0; j < 8; j++) settle(f[~unit & 1].v[j >> 2][j & 3]);
        }
      }
      if (++stage == STAGES) stage = 0, parity ^= 1;
    }
  }
  wgmma_wait<0>();
  settle(sums);
  float by[N / 4];  // asked for together
#pragma unroll
  for (int i = 0; i < N / 4; i++) by[i] = x_scales[tile.x_row + min((i >> 1) * 8 + 2 * t + (i & 1), tile.count - 1)] * (1.0f / WEIGHT_SCALE);
  if (!joined<N / 8>([&](int i) -> float* { return sums.v + 4 * i; }, partial, counters)) return;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (row_of(i) >= rows) continue;
    Target target = target_of(outs, bias, row_of(i), rows, tile, experts);
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
      for (int c = 0; c < 2; c++) {
        int column = n * 8 + 2 * t + c;
        if (column >= tile.count) continue;
        store_result(target, sums.v[4 * n + 2 * i + c] * by[2 * n + c], column, tile, experts, factor, scale, softcap);
      }
    }
  }
}
