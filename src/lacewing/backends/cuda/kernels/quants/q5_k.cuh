// 256 values in 176 bytes: float16 d and dmin, 12 bytes of scales as in Q4_K, 32 bytes of fifth bits, nibbles as in Q4_K.
// value = d * scale * code - dmin * minimum. `fine` holds scale and minimum of a group as bytes, `coarse` d and dmin.
#include "k_scales.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = run * 176, codes = at + 48 + (i >> 1) * 32;
  int shift = (i & 1) * 4;
  for (int w = 0; w < 4; w++) {
    to.plane[0][group * 4 + w] = nibble_word(s.word(codes + w * 4), shift, s.word(codes + 16 + w * 4), shift);
  }
  to.plane[1][group] = bit_word(s, at + 16, i);
  put_half(to.plane[2], group, k_scales(s, at + 4, i));
  to.plane[3][group >> 3] = s.word(at);
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  uint4 q = four(p.plane[0], group);
  u32 h = p.plane[1][group], sm = half_of(p.plane[2][group >> 1], group);
  float2 d = halves_float(p.plane[3][group >> 3]);
  return {low_nibbles(q) | fifth_a(h), high_nibbles(q) | fifth_b(h), both(d.x * (float)(sm & 0xFFu)),
          both(d.y * (float)((sm >> 8) & 0xFFu))};
}
