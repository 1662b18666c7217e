// Activations as bytes: rows of int8, each 32 with a scale (the largest magnitude / 127) and the sums of their first and last 16 codes.
#pragma once
#include "ptx.cuh"

// rows of `groups` groups: 32 bytes each, and two words: the scale, two int16
struct Bytes {
  u32* codes;
  uint2* scales;
};

// Four values of a thread, eight threads a group; the largest is compared as an integer, so that a NaN shows. All threads of a warp.
struct Quad {
  u32 codes;
  float scale;
  int sum;  // of the codes of the thread's 16 values
};
DEVICE Quad as_bytes(float4 v) {
  u32 size = max(max(__float_as_uint(v.x) & 0x7FFFFFFFu, __float_as_uint(v.y) & 0x7FFFFFFFu),
                 max(__float_as_uint(v.z) & 0x7FFFFFFFu, __float_as_uint(v.w) & 0x7FFFFFFFu));
#pragma unroll
  for (int step = 1; step < 8; step <<= 1) size = max(size, __shfl_xor_sync(ALL, size, step));
  float largest = __uint_as_float(size), inverse = size ? 127.0f / largest : 0.0f;
  int a = __float2int_rn(v.x * inverse), b = __float2int_rn(v.y * inverse), c = __float2int_rn(v.z * inverse),
      d = __float2int_rn(v.w * inverse), sum = a + b + c + d;
#pragma unroll
  for (int step = 1; step < 4; step <<= 1) sum += __shfl_xor_sync(ALL, sum, step);
  return {(a & 0xFFu) | (b & 0xFFu) << 8 | (c & 0xFFu) << 16 | (u32)d << 24, largest / 127.0f, sum};
}

// A value a thread, a warp a group: the same bits. All threads of a warp.
DEVICE void store_group(const Bytes& to, int group, float v) {
  const int lane = threadIdx.x % WARP;
  u32 size = __float_as_uint(v) & 0x7FFFFFFFu;
#pragma unroll
  for (int step = 1; step < 32; step <<= 1) size = max(size, __shfl_xor_sync(ALL, size, step));
  float largest = __uint_as_float(size), inverse = size ? 127.0f / largest : 0.0f;
  int code = __float2int_rn(v * inverse), sum = code;
  u32 word = ((u32)code & 0xFFu) << (lane % 4 * 8);
  word |= __shfl_xor_sync(ALL, word, 1);
  word |= __shfl_xor_sync(ALL, word, 2);
#pragma unroll
  for (int step = 1; step < 16; step <<= 1) sum += __shfl_xor_sync(ALL, sum, step);
  int other = __shfl_xor_sync(ALL, sum, 16);
  if (lane % 4 == 0) to.codes[group * 8 + lane / 4] = word;
  if (lane == 0) to.scales[group] = make_uint2(__float_as_uint(largest / 127.0f), (sum & 0xFFFFu) | (u32)other << 16);
}

// `four`: which four values of the row
DEVICE void store_bytes(const Bytes& to, int t, int groups, int four, float4 v, bool on) {
  Quad q = as_bytes(v);
  int other = __shfl_xor_sync(ALL, q.sum, 4);
  if (!on) return;
  to.codes[(size_t)t * groups * 8 + four] = q.codes;
  if ((four & 7) == 0) to.scales[(size_t)t * groups + four / 8] = make_uint2(__float_as_uint(q.scale), (q.sum & 0xFFFFu) | (u32)other << 16);
}
