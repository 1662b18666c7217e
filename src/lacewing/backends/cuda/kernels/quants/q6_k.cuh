// 256 values in 210 bytes: 128 of low nibbles, 64 of upper bit pairs, 16 signed scales (one for 16 values), a float16 d.
// value = d * scale * (code - 32). `fine` holds the two scales of a group, `coarse` d. The top bit of a code is kept turned,
// which makes it signed; as the upper six bits of bytes codes are 4 * (code - 32).
#include "planes.cuh"
#include "ptx.cuh"
#define HALF_SCALES 1

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

#define RAW 1
struct Raw { uint4 q; uint2 pairs; u32 fine, coarse; };
DEVICE Raw load_raw(const Planes& p, size_t group) {
  return {stream16(p.plane[0] + group * 4), stream8(p.plane[1] + group * 2), load2((const u16*)p.plane[2] + group),
          load4(p.plane[3] + (group >> 3))};
}
__device__ __forceinline__ uint4 upper(u32 p) { return make_uint4(p << 6, p << 4, p << 2, p) & 0xC0C0C0C0u; }
DEVICE Group group_of(const Raw& r) {
  float d = half_float(r.coarse) * 0.25f;
  return {((r.q << 2) & 0x3C3C3C3Cu) | upper(r.pairs.x), ((r.q >> 2) & 0x3C3C3C3Cu) | upper(r.pairs.y),
          make_float2(d * signed_byte_float(r.fine, 0), d * signed_byte_float(r.fine, 1)), both(0.0f)};
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }

#define HALVES_GIVEN 1
struct Scale { u32 a, b; };
DEVICE Scale scale_of(const Raw& r) {
  u32 pair = mul2(mul2(low_twice(r.coarse), 0x4C004C00u), byte_pair(r.fine ^ 0x8080u, 0xE480E480u));
  return {low_twice(pair), high_twice(pair)};
}
DEVICE u32 moved(u32 w, int by) { return by >= 0 ? w << by : w >> -by; }
DEVICE void halves(const Raw& r, const Scale& s, int w, const Masks& m, u32 (&v)[4]) {
  u32 q = word_of(r.q, w), odd = q >> 8, pa = moved(r.pairs.x, 4 - 2 * w), pb = moved(r.pairs.y, 8 - 2 * w);
  u32 odd_a = moved(r.pairs.x >> 8, 4 - 2 * w), odd_b = moved(r.pairs.y >> 8, 8 - 2 * w);
  v[0] = mul2(add2((q & m.low) | ((pa & 0x00300030u) ^ 0x64206420u), 0xE420E420u), s.a);
  v[1] = mul2(add2((odd & m.low) | ((odd_a & 0x00300030u) ^ 0x64206420u), 0xE420E420u), s.a);
  v[2] = mul2(fma2((q & m.high) | ((pb & 0x03000300u) ^ 0x66006600u), m.sixteenth, 0xD600D600u), s.b);
  v[3] = mul2(fma2((odd & m.high) | ((odd_b & 0x03000300u) ^ 0x66006600u), m.sixteenth, 0xD600D600u), s.b);
}
