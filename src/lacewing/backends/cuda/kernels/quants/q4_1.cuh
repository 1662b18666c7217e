// 32 values in 20 bytes: float16 scale and minimum, then nibbles as in Q4_0; value = d * code + m
#include "planes.cuh"
#define HAS_MIN 1

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 20;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 4 + w * 4);
  to.plane[1][group] = s.word(at);
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  uint4 q = four(p.plane[0], group);
  float2 dm = halves_float(p.plane[1][group]);
  return {low_nibbles(q), high_nibbles(q), both(dm.x), both(-dm.y)};
}
