// floats as they stand in the checkpoint, two values a word: the upper halves of float32
#include "planes.cuh"
#define FLOATS 1

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  for (int w = 0; w < 16; w++) to.plane[0][group * 16 + w] = s.word(((run * 8 + i) * 16 + w) * 4);
}

__device__ __forceinline__ void load_values(const Planes& p, size_t group, float* out) {
  const uint4* q = (const uint4*)(p.plane[0] + group * 16);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint4 v = q[i];
    u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      out[8 * i + 2 * j] = __uint_as_float(words[j] << 16);
      out[8 * i + 2 * j + 1] = __uint_as_float(words[j] & 0xFFFF0000u);
    }
  }
}
