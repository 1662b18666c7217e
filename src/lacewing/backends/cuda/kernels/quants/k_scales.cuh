// Scale and minimum of the groups of Q4_K and Q5_K: in a checkpoint 6 bits each, in 12 bytes from byte `at` on, here two bytes.
#pragma once
#include "planes.cuh"
#include "ptx.cuh"

__device__ u32 k_scales(const Source& s, size_t at, int i) {
  if (i < 4) return (s.byte(at + i) & 63u) | (s.byte(at + 4 + i) & 63u) << 8;
  u32 last = s.byte(at + 4 + i);
  u32 scale = (last & 15u) | (s.byte(at + i - 4) >> 6) << 4;
  return scale | ((last >> 4) | (s.byte(at + i) >> 6) << 4) << 8;
}

// for products in float16, times WEIGHT_SCALE: d and -dmin times the bytes, both at once; the products are rounded once
struct Scale { u32 scale, min; };
DEVICE Scale k_scale_of(u32 coarse, u32 fine) {
  u32 pair = mul2(mul2(coarse, 0xCC004C00u), byte_pair(fine, 0xE400E400u));
  return {low_twice(pair), high_twice(pair)};
}
