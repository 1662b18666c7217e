// 32 values in 20 bytes: float16 scale and minimum, then nibbles as in Q4_0; value = d * code + m
#include "planes.cuh"
#include "ptx.cuh"
#define HAS_MIN 1

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 20;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 4 + w * 4);
  to.plane[1][group] = s.word(at);
}

#define RAW 1
struct Raw { uint4 q; u32 coarse; };
DEVICE Raw load_raw(const Planes& p, size_t group) { return {stream16(p.plane[0] + group * 4), load4(p.plane[1] + group)}; }
DEVICE Group group_of(const Raw& r) {
  float2 dm = halves_float(r.coarse);
  return {low_nibbles(r.q), high_nibbles(r.q), both(dm.x), both(-dm.y)};
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }
