// The largest values of what the threads of a block hold, in their order: a bitonic sort. MOST: (value bits, id) of a thread; both it
// and the threads are powers of two.
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

template <int MOST, int COUNT>
__device__ void keep_largest(const uint2* values, uint2* kept) {
  constexpr int SIZE = MOST * THREADS;
  __shared__ u64 keys[SIZE];
#pragma unroll
  for (int j = 0; j < MOST; j++) keys[j * THREADS + threadIdx.x] = sort_key(values[j]);
  __syncthreads();
  for (int run = 2; run <= SIZE; run *= 2) {
    for (int apart = run / 2; apart > 0; apart /= 2) {
#pragma unroll
      for (int pair = threadIdx.x; pair < SIZE / 2; pair += THREADS) {
        int low = 2 * pair - (pair & (apart - 1)), high = low + apart;
        u64 a = keys[low], b = keys[high];
        if ((a < b) == ((low & run) == 0)) keys[low] = b, keys[high] = a;
      }
      __syncthreads();
    }
  }
  for (int i = threadIdx.x; i < COUNT; i += THREADS) kept[i] = sorted_value(keys[i]);
}
