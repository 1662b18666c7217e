// 32 values in 22 bytes: a float16 scale, 32 fifth bits, nibbles as in Q4_0; value = d * (code - 16).
// Fifth bits are kept turned, which makes codes signed; as the upper five bits of bytes they are 8 * (code - 16).
#include "planes.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 22;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 6 + w * 4);
  to.plane[1][group] = ~spread_bits(s.word(at + 2));
  put_half(to.plane[2], group, s.half(at));
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  uint4 q = four(p.plane[0], group);
  u32 h = p.plane[1][group];
  float d = float_of(p.plane[2][group >> 1], group) * 0.125f;
  return {((q << 3) & 0x78787878u) | top_a(h), ((q >> 1) & 0x78787878u) | top_b(h), both(d), both(0.0f)};
}
