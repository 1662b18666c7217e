// 32 values in 18 bytes: a float16 scale, then nibbles as in Q4_0; value = d * one of 16 uneven steps
#include "uneven.cuh"

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t at = (run * 8 + i) * 18;
  for (int w = 0; w < 4; w++) to.plane[0][group * 4 + w] = s.word(at + 2 + w * 4);
  put_half(to.plane[1], group, s.half(at));
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  Nibbles n = uneven(four(p.plane[0], group));
  return {low_uneven(n), high_uneven(n), both(float_of(p.plane[1][group >> 1], group)), both(0.0f)};
}
