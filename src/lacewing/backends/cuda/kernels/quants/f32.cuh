// floats as they stand in the checkpoint
#include "planes.cuh"
#define FLOATS 1

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  for (int w = 0; w < 32; w++) to.plane[0][group * 32 + w] = s.word(((run * 8 + i) * 32 + w) * 4);
}

__device__ __forceinline__ void load_values(const Planes& p, size_t group, float* out) {
  const float4* q = (const float4*)(p.plane[0] + group * 32);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float4 v = q[i];
    out[4 * i] = v.x, out[4 * i + 1] = v.y, out[4 * i + 2] = v.z, out[4 * i + 3] = v.w;
  }
}
