// 256 values in 176 bytes: float16 d and dmin, 12 bytes of scales as in Q4_K, 32 bytes of fifth bits, nibbles as in Q4_K.
// value = d * scale * code - dmin * minimum. `fine` holds scale and minimum of a group as bytes, `coarse` d and dmin.
#include "k_scales.cuh"
#define HAS_MIN 1

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

#define RAW 1
struct Raw { uint4 q; u32 bits, fine, coarse; };
DEVICE Raw load_raw(const Planes& p, size_t group) {
  return {stream16(p.plane[0] + group * 4), load4(p.plane[1] + group), load2((const u16*)p.plane[2] + group),
          load4(p.plane[3] + (group >> 3))};
}
DEVICE Group group_of(const Raw& r) {
  float2 d = halves_float(r.coarse);
  return {low_nibbles(r.q) | fifth_a(r.bits), high_nibbles(r.q) | fifth_b(r.bits), both(d.x * byte_float(r.fine, 0)),
          both(d.y * byte_float(r.fine, 1))};
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }

#define HALVES_GIVEN 1
DEVICE Scale scale_of(const Raw& r) { return k_scale_of(r.coarse, r.fine); }
DEVICE void halves(const Raw& r, const Scale& s, int w, const Masks& m, u32 (&v)[4]) {
  u32 q = word_of(r.q, w), odd = q >> 8, h = r.bits << (4 - w), odd_h = (r.bits >> 8) << (4 - w);
  v[0] = fma2(add2(((q & m.low) | 0x64006400u) | (h & 0x00100010u), 0xE400E400u), s.scale, s.min);
  v[1] = fma2(add2(((odd & m.low) | 0x64006400u) | (odd_h & 0x00100010u), 0xE400E400u), s.scale, s.min);
  v[2] = fma2(fma2(((q & m.high) | 0x64006400u) | (h & 0x01000100u), m.sixteenth, 0xD400D400u), s.scale, s.min);
  v[3] = fma2(fma2(((odd & m.high) | 0x64006400u) | (odd_h & 0x01000100u), m.sixteenth, 0xD400D400u), s.scale, s.min);
}
