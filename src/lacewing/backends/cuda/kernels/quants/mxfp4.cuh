// 32 four-bit floats in 17 bytes: a power of two, then nibbles as in Q4_0; value = 2^(e - 128) * doubled float.
// `fine` holds a byte a group, the exponent of that power as a float32 has it; 2^-127 and 2^-128 count as 0.
#include "e2m1.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 17;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = kept_floats(s.word(at + 1 + w * 4));
  put_byte(to.plane[1], group, max(s.byte(at), 1u) - 1);
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  uint4 q = four(p.plane[0], group), sizes = sizes_of(q);
  float d = __uint_as_float(byte_of(p.plane[1][group >> 2], group) << 23);
  return {low_floats(q, sizes), high_floats(q, sizes), both(d), both(0.0f)};
}
