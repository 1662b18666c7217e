// 32 values in 24 bytes: float16 scale and minimum, 32 fifth bits, nibbles as in Q4_0; value = d * code + m
#include "planes.cuh"
#include "ptx.cuh"
#define HAS_MIN 1

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 24;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 8 + w * 4);
  to.plane[1][group] = spread_bits(s.word(at + 4));
  to.plane[2][group] = s.word(at);
}

#define RAW 1
struct Raw { uint4 q; u32 bits, coarse; };
DEVICE Raw load_raw(const Planes& p, size_t group) {
  return {stream16(p.plane[0] + group * 4), load4(p.plane[1] + group), load4(p.plane[2] + group)};
}
DEVICE Group group_of(const Raw& r) {
  float2 dm = halves_float(r.coarse);
  return {low_nibbles(r.q) | fifth_a(r.bits), high_nibbles(r.q) | fifth_b(r.bits), both(dm.x), both(-dm.y)};
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }
