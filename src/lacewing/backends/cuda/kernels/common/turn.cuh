// Cosine and sine of position * frequency. A frequency is a share of a turn in fixed point, 32 bits and 8 more, so that the product
// wraps at whole turns without loss: the angle is right to 3e-6 at position 1,000,000.
#pragma once
#include "step.cuh"

__device__ __forceinline__ float2 turned(u32 position, uint2 frequency) {
  u32 turns = position * frequency.x + ((position * frequency.y) >> 8);
  float angle = (float)(int)turns * 1.4629180792671596e-9f;  // 2 pi / 2^32
  float2 found;
  sincosf(angle, &found.y, &found.x);
  return found;
}
