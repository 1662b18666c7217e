// 64 four-bit floats in 36 bytes: four unsigned E4M3 scales for 16 values each, then nibbles, 16 values at a time, value l and
// 8 + l in byte l. value = half of the scale * doubled float. `coarse` holds two halves of scales as float16, which is exact.
#include "e2m1.cuh"
#define HALF_SCALES 1

// 0x7F counts as 0; bit 7 says nothing
__device__ u32 half_scale(u32 e4m3) {
  u32 exponent = (e4m3 >> 3) & 15u;
  float normal = (float)((e4m3 & 7u) + 8u) * __uint_as_float((exponent + 116u) << 23);  // (8 + fraction) * 2^(exponent - 11)
  float scale = exponent == 0 ? (float)(e4m3 & 7u) * 0.0009765625f : normal;
  return half_bits((e4m3 & 0x7Fu) == 0x7Fu ? 0.0f : scale);
}

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t block = (run * 4 + (i >> 1)) * 36, half_run = i & 1;
  size_t at = block + 4 + half_run * 16;  // 16 bytes: values 0 to 15, then 16 to 31
  for (int w = 0; w < 4; w++) {
    // values 4w to 4w + 3 of each half: low nibbles of words 0 and 1, then their high nibbles
    int start = (w & 1) * 4, shift = (w >> 1) * 4;
    to.plane[0][group * 4 + w] = kept_floats(nibble_word(s.word(at + start), shift, s.word(at + 8 + start), shift));
  }
  u32 scales = s.half(block + half_run * 2);
  to.plane[1][group] = half_scale(scales & 0xFFu) | half_scale(scales >> 8) << 16;
}

__device__ __forceinline__ Group load_group(const Planes& p, size_t group) {
  uint4 q = four(p.plane[0], group), sizes = sizes_of(q);
  return {low_floats(q, sizes), high_floats(q, sizes), halves_float(p.plane[1][group]), both(0.0f)};
}
