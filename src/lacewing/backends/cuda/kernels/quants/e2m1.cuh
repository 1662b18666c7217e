// Four-bit floats, doubled: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives, eight to a word. The codes of 6 and 8 change places when a
// matrix is cut: then the lower three bits c b a are the size, but for 3 more where a and c are set, and 2 more where all are, and
// eight sizes come out at once. Minus zero becomes zero, so that no carry of a negation leaves its byte.
#pragma once
#include "planes.cuh"

__device__ __forceinline__ u32 kept_floats(u32 q) {
  u32 nonzero = (q | (q >> 1) | (q >> 2)) & 0x11111111u;
  u32 exchanged = (q >> 2) & (q ^ (q >> 1)) & 0x11111111u;
  return (q & (0x77777777u | (nonzero << 3))) ^ (exchanged * 3);
}

__device__ __forceinline__ uint4 sizes_of(uint4 q) {
  uint4 outer = (q & (q >> 2)) & 0x11111111u;
  uint4 all = outer & (q >> 1);
  return (q & 0x77777777u) + outer * 3 + all * 2;
}

__device__ __forceinline__ uint4 negated(uint4 sizes, uint4 signs) { return (sizes ^ (signs * 255)) + signs; }

// the codes of the low and of the high nibbles
__device__ __forceinline__ uint4 low_floats(uint4 q, uint4 sizes) { return negated(sizes & 0x0F0F0F0Fu, (q >> 3) & 0x01010101u); }
__device__ __forceinline__ uint4 high_floats(uint4 q, uint4 sizes) {
  return negated((sizes >> 4) & 0x0F0F0F0Fu, (q >> 7) & 0x01010101u);
}
