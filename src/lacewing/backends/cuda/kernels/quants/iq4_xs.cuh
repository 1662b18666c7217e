// 256 values in 136 bytes: a float16 d, upper pairs and lower nibbles of 8 scales, then nibbles, 32 values at a time.
// value = d * (scale - 32) * one of 16 uneven steps. `fine` holds the scale of a group, signed, `coarse` d.
#include "uneven.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = run * 136;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 8 + i * 16 + w * 4);
  u32 low = (s.byte(at + 4 + (i >> 1)) >> ((i & 1) * 4)) & 15u;
  u32 high = (s.half(at + 2) >> (i * 2)) & 3u;
  put_byte(to.plane[1], group, (low | high << 4) - 32u);
  to.plane[2][group >> 3] = s.half(at);
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  Nibbles n = uneven(four(p.plane[0], group));
  float d = half_float(p.plane[2][group >> 3]) * signed_byte(p.plane[1][group >> 2], group);
  return {low_uneven(n), high_uneven(n), both(d), both(0.0f)};
}
