// 32 values in 22 bytes: a float16 scale, 32 fifth bits, nibbles as in Q4_0; value = d * (code - 16).
// Fifth bits are kept turned, which makes codes signed; as the upper five bits of bytes they are 8 * (code - 16).
#include "planes.cuh"
#include "ptx.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 22;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 6 + w * 4);
  to.plane[1][group] = ~spread_bits(s.word(at + 2));
  put_half(to.plane[2], group, s.half(at));
}

#define RAW 1
struct Raw { uint4 q; u32 bits, coarse; };
DEVICE Raw load_raw(const Planes& p, size_t group) {
  return {stream16(p.plane[0] + group * 4), load4(p.plane[1] + group), load2((const u16*)p.plane[2] + group)};
}
DEVICE Group group_of(const Raw& r) {
  return {((r.q << 3) & 0x78787878u) | top_a(r.bits), ((r.q >> 1) & 0x78787878u) | top_b(r.bits), both(half_float(r.coarse) * 0.125f),
          both(0.0f)};
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }
