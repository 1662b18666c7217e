// 32 values in 34 bytes: a float16 scale, then signed bytes; of a run first the first 16 values of each group, then the others
#include "planes.cuh"
#include "ptx.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t start = (run * 8 + i) * 34, at = (group & ~(size_t)7) * 8 + (group & 7) * 4;
  for (int w = 0; w < 8; w++) to.plane[0][at + (w >> 2) * 32 + (w & 3)] = s.word(start + 2 + w * 4);
  put_half(to.plane[1], group, s.half(start));
}

#define RAW 1
struct Raw { uint4 a, b; u32 coarse; };
DEVICE Raw load_raw(const Planes& p, size_t group) {
  const u32* at = p.plane[0] + (group + (group & ~(size_t)7)) * 4;
  return {stream16(at), stream16(at + 32), load2((const u16*)p.plane[1] + group)};
}
DEVICE Group group_of(const Raw& r) { return {r.a, r.b, both(half_float(r.coarse)), both(0.0f)}; }

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }
