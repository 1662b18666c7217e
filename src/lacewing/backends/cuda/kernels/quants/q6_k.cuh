// 256 values in 210 bytes: 128 of low nibbles, 64 of upper bit pairs, 16 signed scales (one for 16 values), a float16 d.
// value = d * scale * (code - 32). `fine` holds the two scales of a group, `coarse` d. The top bit of a code is kept turned,
// which makes it signed; as the upper six bits of bytes codes are 4 * (code - 32).
#include "planes.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = run * 210, low = at + (i >> 2) * 64 + (i & 1) * 32, high = at + 128 + (i >> 2) * 32;
  int shift = ((i >> 1) & 1) * 4;
  for (int w = 0; w < 4; w++) {
    to.plane[0][group * 4 + w] = nibble_word(s.word(low + w * 4), shift, s.word(low + 16 + w * 4), shift);
  }
  for (int h = 0; h < 2; h++) to.plane[1][group * 2 + h] = pair_word(s, high + h * 16, (i & 3) * 2) ^ 0xAAAAAAAAu;
  put_half(to.plane[2], group, s.half(at + 192 + i * 2));
  to.plane[3][group >> 3] = s.half(at + 208);
}

__device__ __forceinline__ uint4 upper(u32 p) { return make_uint4(p << 6, p << 4, p << 2, p) & 0xC0C0C0C0u; }

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  uint4 q = four(p.plane[0], group);
  uint2 h = *(const uint2*)(p.plane[1] + group * 2);
  u32 s = p.plane[2][group >> 1];
  float d = half_float(p.plane[3][group >> 3]) * 0.25f;
  return {((q << 2) & 0x3C3C3C3Cu) | upper(h.x), ((q >> 2) & 0x3C3C3C3Cu) | upper(h.y),
          make_float2(d * signed_byte(s, group * 2), d * signed_byte(s, group * 2 + 1)), both(0.0f)};
}
