// 32 four-bit floats in 17 bytes: a power of two, then nibbles as in Q4_0; value = 2^(e - 128) * doubled float.
// `fine` holds a byte a group, the exponent of that power as a float32 has it; 2^-127 and 2^-128 count as 0.
#include "e2m1.cuh"
#include "ptx.cuh"
#undef WEIGHT_SCALE
#define WEIGHT_SCALE 0.0625f  // powers of two go far up

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 17;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = kept_floats(s.word(at + 1 + w * 4));
  put_byte(to.plane[1], group, max(s.byte(at), 1u) - 1);
}

#define RAW 1
struct Raw { uint4 q; u32 fine; };
DEVICE Raw load_raw(const Planes& p, size_t group) { return {stream16(p.plane[0] + group * 4), load1((const u8*)p.plane[1] + group)}; }
DEVICE Group group_of(const Raw& r) {
  uint4 sizes = sizes_of(r.q);
  return {low_floats(r.q, sizes), high_floats(r.q, sizes), both(__uint_as_float(r.fine << 23)), both(0.0f)};
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }

// a code's exponent and fraction at their places in a float16 are 2^-15 of the doubled float
#define HALVES_GIVEN 1
typedef u32 Scale;
DEVICE Scale scale_of(const Raw& r) { return twice(__uint_as_float(r.fine << 23) * (32768.0f * WEIGHT_SCALE)); }
DEVICE u32 small_floats(u32 q) { return ((q & 0x00070007u) << 9) | ((q & 0x00080008u) << 12); }
DEVICE void halves(const Raw& r, const Scale& s, int w, const Masks&, u32 (&v)[4]) {
  u32 q = word_of(r.q, w), exchanged = (q >> 2) & (q ^ (q >> 1)) & 0x11111111u;
  q ^= exchanged * 3;
  v[0] = mul2(small_floats(q), s);
  v[1] = mul2(small_floats(q >> 8), s);
  v[2] = mul2(small_floats(q >> 4), s);
  v[3] = mul2(small_floats(q >> 12), s);
}
