// Scale and minimum of the groups of Q4_K and Q5_K, 6 bits each in 12 bytes from byte `at` on, as two bytes.
#pragma once
#include "planes.cuh"

__device__ u32 k_scales(const Source& s, size_t at, int i) {
  if (i < 4) return (s.byte(at + i) & 63u) | (s.byte(at + 4 + i) & 63u) << 8;
  u32 last = s.byte(at + 4 + i);
  u32 scale = (last & 15u) | (s.byte(at + i - 4) >> 6) << 4;
  return scale | ((last >> 4) | (s.byte(at + i) >> 6) << 4) << 8;
}
