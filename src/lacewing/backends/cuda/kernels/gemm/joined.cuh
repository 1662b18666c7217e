// Blocks that share a tile, each with a part of the columns.
#pragma once
#include "step.cuh"

// With splits along the columns, the block that comes last adds up what all of a tile left in `partial`, in their order; `counters` are
// zeros before and after. Whether this block goes on. COUNT fours of sums a thread.
template <int COUNT, class Four>
__device__ __forceinline__ bool joined(Four four, float4* partial, u32* counters) {
  __shared__ bool last;
  int splits = gridDim.z, tile = blockIdx.y * gridDim.x + blockIdx.x;
  if (splits == 1) return true;
  float4* mine = partial + (size_t)tile * splits * COUNT * THREADS + threadIdx.x;
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    float* s = four(i);
    mine[(size_t)(blockIdx.z * COUNT + i) * THREADS] = make_float4(s[0], s[1], s[2], s[3]);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(counters + tile, 1) == splits - 1;
    if (last) counters[tile] = 0;
    __threadfence();
  }
  __syncthreads();
  if (!last) return false;
#pragma unroll
  for (int i = 0; i < 4 * COUNT; i++) four(i / 4)[i % 4] = 0.0f;
#pragma unroll(COUNT > 4 ? 1 : 4)
  for (int split = 0; split < splits; split++, mine += COUNT * THREADS) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      float4 v = __ldcg(mine + (size_t)i * THREADS);
      float* s = four(i);
      s[0] += v.x, s[1] += v.y, s[2] += v.z, s[3] += v.w;
    }
  }
  return true;
}
