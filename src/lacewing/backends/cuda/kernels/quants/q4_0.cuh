// 32 values in 18 bytes: a float16 scale, then nibbles, value i and 16 + i in byte i; value = d * (code - 8).
// Nibbles are kept with the top bit turned, which makes them signed; as the upper halves of bytes they are 16 * (code - 8).
#include "planes.cuh"
#include "ptx.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 18;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 2 + w * 4) ^ 0x88888888u;
  put_half(to.plane[1], group, s.half(at));
}

#define RAW 1
struct Raw { uint4 q; u32 coarse; };
DEVICE Raw load_raw(const Planes& p, size_t group) { return {stream16(p.plane[0] + group * 4), load2((const u16*)p.plane[1] + group)}; }
DEVICE Group group_of(const Raw& r) {
  return {(r.q << 4) & 0xF0F0F0F0u, r.q & 0xF0F0F0F0u, both(half_float(r.coarse) * 0.0625f), both(0.0f)};
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }

#define HALVES_GIVEN 1
typedef u32 Scale;
DEVICE Scale scale_of(const Raw& r) { return twice(half_float(r.coarse) * WEIGHT_SCALE); }
DEVICE void halves(const Raw& r, const Scale& s, int w, const Masks& m, u32 (&v)[4]) {
  u32 q = word_of(r.q, w), odd = q >> 8;
  v[0] = mul2(add2((q & m.low) ^ 0x64086408u, 0xE408E408u), s);
  v[1] = mul2(add2((odd & m.low) ^ 0x64086408u, 0xE408E408u), s);
  v[2] = mul2(fma2((q & m.high) ^ 0x64806480u, m.sixteenth, 0xD480D480u), s);
  v[3] = mul2(fma2((odd & m.high) ^ 0x64806480u, m.sixteenth, 0xD480D480u), s);
}
