// 256 values in 110 bytes: 32 bytes of third bits, 64 of lower bit pairs as in Q2_K, 12 of 6-bit scales, a float16 d.
// value = d * (scale - 32) * (code - 4). `fine` holds the two scales of a group, signed. Third bits are kept turned, which
// makes codes signed; as the upper three bits of bytes they are 32 * (code - 4).
#include "planes.cuh"
#define HALF_SCALES 1

__device__ u32 scale_of(const Source& s, size_t at, int j) {
  u32 low = (s.byte(at + (j & 7)) >> ((j >> 3) * 4)) & 15u;
  u32 high = (s.byte(at + 8 + (j & 3)) >> ((j >> 2) * 2)) & 3u;
  return ((low | high << 4) - 32u) & 0xFFu;
}

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = run * 110, codes = at + 32 + (i >> 2) * 32;
  for (int h = 0; h < 2; h++) to.plane[0][group * 2 + h] = pair_word(s, codes + h * 16, (i & 3) * 2);
  to.plane[1][group] = ~bit_word(s, at, i);
  put_half(to.plane[2], group, scale_of(s, at + 96, i * 2) | scale_of(s, at + 96, i * 2 + 1) << 8);
  to.plane[3][group >> 3] = s.half(at + 108);
}

__device__ __forceinline__ uint4 two_bits(u32 p) { return make_uint4(p << 5, p << 3, p << 1, p >> 1) & 0x60606060u; }

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  uint2 q = *(const uint2*)(p.plane[0] + group * 2);
  u32 h = p.plane[1][group], s = p.plane[2][group >> 1];
  float d = half_float(p.plane[3][group >> 3]) * 0.03125f;
  return {two_bits(q.x) | top_a(h), two_bits(q.y) | top_b(h),
          make_float2(d * signed_byte(s, group * 2), d * signed_byte(s, group * 2 + 1)), both(0.0f)};
}
