// 256 values in 136 bytes: a float16 d, upper pairs and lower nibbles of 8 scales, then nibbles, 32 values at a time.
// value = d * (scale - 32) * one of 16 uneven steps. `fine` holds the scale of a group, signed, `coarse` d.
#include "uneven.cuh"
#include "ptx.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = run * 136;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 8 + i * 16 + w * 4);
  u32 low = (s.byte(at + 4 + (i >> 1)) >> ((i & 1) * 4)) & 15u;
  u32 high = (s.half(at + 2) >> (i * 2)) & 3u;
  put_byte(to.plane[1], group, (low | high << 4) - 32u);
  to.plane[2][group >> 3] = s.half(at);
}

#define RAW 1
struct Raw { uint4 q; u32 fine, coarse; };
DEVICE Raw load_raw(const Planes& p, size_t group) {
  return {stream16(p.plane[0] + group * 4), load1((const u8*)p.plane[1] + group), load4(p.plane[2] + (group >> 3))};
}
DEVICE Group group_of(const Raw& r) {
  Nibbles n = uneven(r.q);
  return {low_uneven(n), high_uneven(n), both(half_float(r.coarse) * signed_byte_float(r.fine, 0)), both(0.0f)};
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) { return group_of(load_raw(p, group)); }
