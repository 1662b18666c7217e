// 32 floats of eight bits and the factor that they share, a float32, put together on the host (`gpu/conversion.py`): 36 bytes.
// Sign, exponent and fraction at their places in a float16 give 2^-8 of the value; the factor makes up for it.
// A byte that is no number (0x7F, 0xFF) makes the factor of its group none.
#include "planes.cuh"
#define FLOATS 1

__device__ void pack_group(const Cut& to, const Source& s, size_t run, int i, size_t group) {
  size_t start = (run * 8 + i) * 36;
  u32 factor = __float_as_uint(__uint_as_float(s.word(start)) * 256.0f);
  for (int w = 0; w < 8; w++) {
    u32 four = s.word(start + 4 + w * 4);
    to.plane[0][group * 8 + w] = four;
    if (((four & 0x7F7F7F7Fu) + 0x01010101u) & 0x80808080u) factor = 0x7FC00000u;
  }
  to.plane[1][group] = factor;
}

__device__ __forceinline__ float2 two_floats(u32 w) {  // of bytes 0 and 2
  return halves_float(((w & 0x00800080u) << 8) | ((w & 0x007F007Fu) << 7));
}

__device__ __forceinline__ void load_values(const Planes& p, size_t group, float* out) {
  const u32* q = p.plane[0] + group * 8;
  float factor = __uint_as_float(p.plane[1][group]);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float2 even = two_floats(q[i]), odd = two_floats(q[i] >> 8);
    out[4 * i] = even.x * factor, out[4 * i + 1] = odd.x * factor;
    out[4 * i + 2] = even.y * factor, out[4 * i + 3] = odd.y * factor;
  }
}
