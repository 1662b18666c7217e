// The larger of two (value bits, id); an id of BROKEN, a value that is no number, wins always; the lower id among equals.
#pragma once
#include "step.cuh"

#define BROKEN 0xFFFFFFFFu
#define NOTHING 0xFFFFFFFEu  // there is none

__device__ __forceinline__ uint2 nothing() { return make_uint2(__float_as_uint(NONE), NOTHING); }

__device__ __forceinline__ uint2 larger(uint2 a, uint2 b) {
  if (a.y == BROKEN) return a;
  if (b.y == BROKEN) return b;
  float x = __uint_as_float(a.x), y = __uint_as_float(b.x);
  return x > y || (x == y && a.y < b.y) ? a : b;
}

// a logit with its id; minus infinity is a number here
__device__ __forceinline__ uint2 judged(float logit, u32 id) {
  u32 bits = __float_as_uint(logit);
  return make_uint2(bits, (bits & 0x7F800000u) == 0x7F800000u && bits != 0xFF800000u ? BROKEN : id);
}

__device__ __forceinline__ uint2 largest_of_warp(uint2 mine) {
#pragma unroll
  for (int n = 16; n > 0; n >>= 1) {
    mine = larger(mine, make_uint2(__shfl_xor_sync(ALL, mine.x, n), __shfl_xor_sync(ALL, mine.y, n)));
  }
  return mine;
}

// of 256 threads; every thread gets it
__device__ __forceinline__ uint2 largest_of_all(uint2 mine) {
  __shared__ uint2 contest[WARP];
  mine = largest_of_warp(mine);
  __syncthreads();
  if (threadIdx.x % WARP == 0) contest[threadIdx.x / WARP] = mine;
  __syncthreads();
  int lane = threadIdx.x % WARP;
  return largest_of_warp(lane < blockDim.x / WARP ? contest[lane] : nothing());
}
