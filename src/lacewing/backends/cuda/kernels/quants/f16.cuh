// floats as they stand in the checkpoint, two values a word
#include "planes.cuh"
#include "ptx.cuh"
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
      float2 two = halves_float(words[j]);
      out[8 * i + 2 * j] = two.x, out[8 * i + 2 * j + 1] = two.y;
    }
  }
}

// eight values, for a GEMV
#define EIGHTS 1
typedef uint4 Eight;
DEVICE float below(u32 q) { return half_float(q); }
DEVICE float above(u32 q) { return half_float(q >> 16); }
DEVICE Eight load_eight(const Planes& p, size_t eight) { return stream16(p.plane[0] + eight * 4); }
DEVICE float dot_eight(const Eight& q, float4 a, float4 b) {
  float y = below(q.x) * a.x + above(q.x) * a.y + below(q.y) * a.z + above(q.y) * a.w;
  y += below(q.z) * b.x + above(q.z) * b.y;
  return y + (below(q.w) * b.z + above(q.w) * b.w);
}

// half a group, for tensor cores: values 8 part to 8 part + 7, and those 16 on
#define PARTS 2
#undef WEIGHT_SCALE
#define WEIGHT_SCALE 1.0f
struct Raw { uint4 a, b; };
DEVICE Raw load_part(const Planes& p, size_t group, int part) {
  const u32* at = p.plane[0] + group * 16 + part * 4;
  return {stream16(at), stream16(at + 8)};
}
#define HALVES_GIVEN 1
typedef u32 Scale;
DEVICE Scale scale_of(const Raw&) { return 0; }
DEVICE void halves(const Raw& r, const Scale&, int w, const Masks&, u32 (&v)[4]) {
  u32 a = w & 1 ? r.a.z : r.a.x, b = w & 1 ? r.a.w : r.a.y, c = w & 1 ? r.b.z : r.b.x, d = w & 1 ? r.b.w : r.b.y;
  v[0] = __byte_perm(a, b, 0x5410);
  v[1] = __byte_perm(a, b, 0x7632);
  v[2] = __byte_perm(c, d, 0x5410);
  v[3] = __byte_perm(c, d, 0x7632);
}
