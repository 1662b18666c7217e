// 256 values in 84 bytes: 16 bytes, low nibble the scale and high one the minimum of 16 values; codes of two bits, four runs of
// 32 to a byte; float16 d and dmin. value = d * scale * code - dmin * minimum. `fine` holds the two bytes of a group.
#include "planes.cuh"
#define HALF_SCALES 1
#define HAS_MIN 1

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = run * 84, codes = at + 16 + (i >> 2) * 32;
  for (int h = 0; h < 2; h++) to.plane[0][group * 2 + h] = pair_word(s, codes + h * 16, (i & 3) * 2);
  put_half(to.plane[1], group, s.half(at + i * 2));
  to.plane[2][group >> 3] = s.word(at + 80);
}

__device__ __forceinline__ uint4 two_bits(u32 p) { return make_uint4(p, p >> 2, p >> 4, p >> 6) & 0x03030303u; }

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  uint2 q = *(const uint2*)(p.plane[0] + group * 2);
  u32 sm = half_of(p.plane[1][group >> 1], group);
  float2 d = halves_float(p.plane[2][group >> 3]);
  return {two_bits(q.x), two_bits(q.y), make_float2(d.x * (float)(sm & 15u), d.x * (float)((sm >> 8) & 15u)),
          make_float2(d.y * (float)((sm >> 4) & 15u), d.y * (float)((sm >> 12) & 15u))};
}
