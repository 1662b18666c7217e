// 32 values in 24 bytes: float16 scale and minimum, 32 fifth bits, nibbles as in Q4_0; value = d * code + m
#include "planes.cuh"
#define HAS_MIN 1

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 24;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 8 + w * 4);
  to.plane[1][group] = spread_bits(s.word(at + 4));
  to.plane[2][group] = s.word(at);
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  uint4 q = four(p.plane[0], group);
  u32 h = p.plane[1][group];
  float2 dm = halves_float(p.plane[2][group]);
  return {low_nibbles(q) | fifth_a(h), high_nibbles(q) | fifth_b(h), both(dm.x), both(-dm.y)};
}
