// 256 values in 144 bytes: float16 d and dmin, 12 bytes of 6-bit scales and minimums, nibbles 64 values at a time.
// value = d * scale * code - dmin * minimum. `fine` holds scale and minimum of a group as bytes, `coarse` d and dmin.
#include "k_scales.cuh"
#define HAS_MIN 1

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = run * 144, codes = at + 16 + (i >> 1) * 32;
  int shift = (i & 1) * 4;
  for (int w = 0; w < 4; w++) {
    to.plane[0][group * 4 + w] = nibble_word(s.word(codes + w * 4), shift, s.word(codes + 16 + w * 4), shift);
  }
  put_half(to.plane[1], group, k_scales(s, at + 4, i));
  to.plane[2][group >> 3] = s.word(at);
}

#define RAW 1
struct Raw { uint4 q; u32 fine, coarse; };
DEVICE Raw load_raw(const Planes& p, size_t group) {
  return {stream16(p.plane[0] + group * 4), load2((const u16*)p.plane[1] + group), load4(p.plane[2] + (group >> 3))};
}
DEVICE Group group_of(const Raw& r) {
  float2 d = halves_float(r.coarse);
  return {low_nibbles(r.q), high_nibbles(r.q), both(d.x * byte_float(r.fine, 0)), both(d.y * byte_float(r.fine, 1))};
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }

#define HALVES_GIVEN 1
DEVICE Scale scale_of(const Raw& r) { return k_scale_of(r.coarse, r.fine); }
DEVICE void halves(const Raw& r, const Scale& s, int w, const Masks& m, u32 (&v)[4]) {
  u32 q = word_of(r.q, w), odd = q >> 8;
  v[0] = fma2(add2((q & m.low) | 0x64006400u, 0xE400E400u), s.scale, s.min);
  v[1] = fma2(add2((odd & m.low) | 0x64006400u, 0xE400E400u), s.scale, s.min);
  v[2] = fma2(fma2((q & m.high) | 0x64006400u, m.sixteenth, 0xD400D400u), s.scale, s.min);
  v[3] = fma2(fma2((odd & m.high) | 0x64006400u, m.sixteenth, 0xD400D400u), s.scale, s.min);
}
