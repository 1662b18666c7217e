// floats as they stand in the checkpoint
#include "planes.cuh"
#include "ptx.cuh"
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

// eight values, for a GEMV
#define EIGHTS 1
struct Eight {
  uint4 a, b;
};
DEVICE Eight load_eight(const Planes& p, size_t eight) { return {stream16(p.plane[0] + eight * 8), stream16(p.plane[0] + eight * 8 + 4)}; }
DEVICE float dot_eight(const Eight& q, float4 a, float4 b) {
  float y = __uint_as_float(q.a.x) * a.x + __uint_as_float(q.a.y) * a.y + __uint_as_float(q.a.z) * a.z + __uint_as_float(q.a.w) * a.w;
  y += __uint_as_float(q.b.x) * b.x + __uint_as_float(q.b.y) * b.y;
  return y + (__uint_as_float(q.b.z) * b.z + __uint_as_float(q.b.w) * b.w);
}
