// The largest values of what the threads of a block hold, in their order: bitonic sorts in registers. MOST: (value bits, id) of a thread;
// both it and the threads are powers of two.
#pragma once
#include "larger.cuh"

// numbers in the order of the values, the lower id first among equals; what is broken above all, what is not there and minus infinity
// below all
__device__ __forceinline__ u64 sort_key(uint2 v) {
  if (v.y == BROKEN) return (u64)0xFFFFFFFFu << 32;
  if (v.y == NOTHING || v.x == 0xFF800000u) return (u64)~NOTHING;
  u32 bits = v.x == 0x80000000u ? 0 : v.x;  // the zeros are alike
  return (u64)(bits >> 31 ? ~bits : bits | 0x80000000u) << 32 | ~v.y;
}

__device__ __forceinline__ uint2 sorted_value(u64 key) {
  u32 high = key >> 32;
  return make_uint2(high >> 31 ? high ^ 0x80000000u : ~high, ~(u32)key);
}

// A step of a bitonic sort, of a lane's key number `slot` of those that its warp has: the one at the place `apart` lanes from here.
__device__ __forceinline__ u64 exchanged(u64 key, int apart, bool larger) {
  u64 other = __shfl_xor_sync(ALL, key, apart);
  return (key > other) == larger ? key : other;
}

// 64 keys of a warp, two a lane, that rise and then fall, become falling ones.
__device__ __forceinline__ void merge(u64 (&keys)[2], int lane) {
  if (keys[0] < keys[1]) {
    u64 first = keys[0];
    keys[0] = keys[1], keys[1] = first;
  }
#pragma unroll
  for (int apart = WARP / 2; apart > 0; apart /= 2) {
#pragma unroll
    for (int slot = 0; slot < 2; slot++) keys[slot] = exchanged(keys[slot], apart, (lane & apart) == 0);
  }
}

// The keys of a warp, MOST a lane, in falling order: number 32 slot + lane.
template <int MOST>
__device__ __forceinline__ void sort(u64 (&keys)[MOST], int lane) {
#pragma unroll
  for (int run = 2; run <= MOST * WARP; run *= 2) {
#pragma unroll
    for (int apart = run / 2; apart > 0; apart /= 2) {
#pragma unroll
      for (int slot = 0; slot < MOST; slot++) {
        bool falling = ((slot * WARP + lane) & run) == 0;
        if (apart < WARP) {
          keys[slot] = exchanged(keys[slot], apart, ((lane & apart) == 0) == falling);
        } else if ((slot & apart / WARP) == 0) {
          u64 &low = keys[slot], &high = keys[slot | apart / WARP];
          if ((low < high) == falling) {
            u64 first = low;
            low = high, high = first;
          }
        }
      }
    }
  }
}

// Each warp sorts its own in registers; then pairs of warps' best COUNT become one.
template <int MOST, int COUNT>
__device__ void keep_largest(const uint2* values, uint2* kept) {
  constexpr int WARPS = THREADS / WARP;
  static_assert(COUNT == 2 * WARP && MOST >= 2, "a lane has two of those that are kept");
  __shared__ u64 best[WARPS][COUNT];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  u64 keys[MOST];
#pragma unroll
  for (int j = 0; j < MOST; j++) keys[j] = sort_key(values[j]);
  sort<MOST>(keys, lane);
  u64 mine[2] = {keys[0], keys[1]};
#pragma unroll
  for (int half = WARPS / 2; half > 0; half /= 2) {
    best[warp][lane] = mine[0], best[warp][WARP + lane] = mine[1];
    __syncthreads();
    if (warp < half) {
#pragma unroll
      for (int slot = 0; slot < 2; slot++) {
        u64 other = best[warp + half][COUNT - 1 - slot * WARP - lane];
        if (other > mine[slot]) mine[slot] = other;
      }
      merge(mine, lane);
    }
    __syncthreads();
  }
  if (warp == 0) kept[lane] = sorted_value(mine[0]), kept[WARP + lane] = sorted_value(mine[1]);
}
