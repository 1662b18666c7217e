// 32 values in 18 bytes: a float16 scale, then nibbles as in Q4_0; value = d * one of 16 uneven steps
#include "uneven.cuh"
#include "ptx.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 18;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 2 + w * 4);
  put_half(to.plane[1], group, s.half(at));
}

#define RAW 1
struct Raw { uint4 q; u32 coarse; };
DEVICE Raw load_raw(const Planes& p, size_t group) { return {stream16(p.plane[0] + group * 4), load2((const u16*)p.plane[1] + group)}; }
DEVICE Group group_of(const Raw& r) {
  Nibbles n = uneven(r.q);
  return {low_uneven(n), high_uneven(n), both(half_float(r.coarse)), both(0.0f)};
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }
