// 32 values in 18 bytes: a float16 scale, then nibbles, value i and 16 + i in byte i; value = d * (code - 8).
// Nibbles are kept with the top bit turned, which makes them signed; as the upper halves of bytes they are 16 * (code - 8).
#include "planes.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 18;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 2 + w * 4) ^ 0x88888888u;
  put_half(to.plane[1], group, s.half(at));
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  uint4 q = four(p.plane[0], group);
  float d = float_of(p.plane[1][group >> 1], group) * 0.0625f;
  return {(q << 4) & 0xF0F0F0F0u, q & 0xF0F0F0F0u, both(d), both(0.0f)};
}
