// The planes of a matrix (`gpu/layouts.py`), and how codes come out of their words.
#pragma once
#include "step.cuh"

struct Planes {
  const u32* plane[4];
};

// 32 values of a row: value i is scale * code[i] - min; codes are four signed bytes a word
struct Group {
  uint4 a, b;           // codes of values 0 to 15, and 16 to 31
  float2 scale, min;  // of a and of b; both alike unless the quant has scales for 16 values
};

__device__ __forceinline__ uint4 four(const u32* plane, size_t group) { return *(const uint4*)(plane + group * 4); }
__device__ __forceinline__ uint4 operator&(uint4 q, u32 m) { return make_uint4(q.x & m, q.y & m, q.z & m, q.w & m); }
__device__ __forceinline__ uint4 operator|(uint4 a, uint4 b) { return make_uint4(a.x | b.x, a.y | b.y, a.z | b.z, a.w | b.w); }
__device__ __forceinline__ uint4 operator&(uint4 a, uint4 b) { return make_uint4(a.x & b.x, a.y & b.y, a.z & b.z, a.w & b.w); }
__device__ __forceinline__ uint4 operator^(uint4 a, uint4 b) { return make_uint4(a.x ^ b.x, a.y ^ b.y, a.z ^ b.z, a.w ^ b.w); }
__device__ __forceinline__ uint4 operator^(uint4 q, u32 m) { return make_uint4(q.x ^ m, q.y ^ m, q.z ^ m, q.w ^ m); }
__device__ __forceinline__ uint4 operator+(uint4 a, uint4 b) { return make_uint4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
__device__ __forceinline__ uint4 operator-(uint4 a, uint4 b) { return make_uint4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w); }
__device__ __forceinline__ uint4 operator*(uint4 a, u32 m) { return make_uint4(a.x * m, a.y * m, a.z * m, a.w * m); }
__device__ __forceinline__ uint4 operator~(uint4 a) { return make_uint4(~a.x, ~a.y, ~a.z, ~a.w); }
__device__ __forceinline__ uint4 operator>>(uint4 q, int n) { return make_uint4(q.x >> n, q.y >> n, q.z >> n, q.w >> n); }
__device__ __forceinline__ uint4 operator<<(uint4 q, int n) { return make_uint4(q.x << n, q.y << n, q.z << n, q.w << n); }

// the low nibbles and, four bits down, the high ones: values 0 to 15 and 16 to 31
__device__ __forceinline__ uint4 low_nibbles(uint4 q) { return q & 0x0F0F0F0Fu; }
__device__ __forceinline__ uint4 high_nibbles(uint4 q) { return (q >> 4) & 0x0F0F0F0Fu; }

// a bit of each of 16 values, at bit 4 or 7 of its byte
__device__ __forceinline__ uint4 fifth_a(u32 h) { return make_uint4(h << 4, h << 3, h << 2, h << 1) & 0x10101010u; }
__device__ __forceinline__ uint4 fifth_b(u32 h) { return make_uint4(h, h >> 1, h >> 2, h >> 3) & 0x10101010u; }
__device__ __forceinline__ uint4 top_a(u32 h) { return make_uint4(h << 7, h << 6, h << 5, h << 4) & 0x80808080u; }
__device__ __forceinline__ uint4 top_b(u32 h) { return make_uint4(h << 3, h << 2, h << 1, h) & 0x80808080u; }

// byte or half word number i of a word; the signed byte as a number
__device__ __forceinline__ u32 byte_of(u32 w, size_t i) { return (w >> ((i & 3) * 8)) & 0xFFu; }
__device__ __forceinline__ u32 half_of(u32 w, size_t i) { return w >> ((i & 1) * 16); }  // above its 16 bits stand others
__device__ __forceinline__ float float_of(u32 w, size_t i) { return half_float(half_of(w, i)); }
__device__ __forceinline__ float signed_byte(u32 w, size_t i) { return (float)((int)(w << ((3 - (i & 3)) * 8)) >> 24); }
__device__ __forceinline__ float2 both(float v) { return make_float2(v, v); }

__device__ __forceinline__ void four_values(u32 codes, float scale, float min, float* out) {
#pragma unroll
  for (int i = 0; i < 4; i++) out[i] = (float)((int)(codes << (24 - 8 * i)) >> 24) * scale - min;
}

// all 32 values
__device__ __forceinline__ void values_of(const Group& g, float* out) {
  four_values(g.a.x, g.scale.x, g.min.x, out);
  four_values(g.a.y, g.scale.x, g.min.x, out + 4);
  four_values(g.a.z, g.scale.x, g.min.x, out + 8);
  four_values(g.a.w, g.scale.x, g.min.x, out + 12);
  four_values(g.b.x, g.scale.y, g.min.y, out + 16);
  four_values(g.b.y, g.scale.y, g.min.y, out + 20);
  four_values(g.b.z, g.scale.y, g.min.y, out + 24);
  four_values(g.b.w, g.scale.y, g.min.y, out + 28);
}

// where blocks of a checkpoint are read, byte after byte: 8, 16 and 32 bits from byte `at` on
struct Source {
  const unsigned char* bytes;
  __device__ u32 byte(size_t at) const { return bytes[at]; }
  __device__ u32 half(size_t at) const { return bytes[at] | (u32)bytes[at + 1] << 8; }
  __device__ u32 word(size_t at) const { return half(at) | half(at + 2) << 16; }
};

// the planes while they are made; a thread cuts a run of 8 groups alone, so that words of several groups are its own
struct Cut {
  u32* plane[4];
};

// four bytes with the low nibbles of one word and the high ones of another
__device__ __forceinline__ u32 nibble_word(u32 low, int low_shift, u32 high, int high_shift) {
  return ((low >> low_shift) & 0x0F0F0F0Fu) | (((high >> high_shift) & 0x0F0F0F0Fu) << 4);
}

// the two bits at `shift` of each of 16 bytes, as `pairs` has them
__device__ __forceinline__ u32 pair_word(const Source& s, size_t at, int shift) {
  u32 all = 0;
  for (int w = 0; w < 4; w++) all |= ((s.word(at + w * 4) >> shift) & 0x03030303u) << (w * 2);
  return all;
}

// bit `shift` of each of 32 bytes, as `bits` has them
__device__ __forceinline__ u32 bit_word(const Source& s, size_t at, int shift) {
  u32 all = 0;
  for (int w = 0; w < 8; w++) all |= ((s.word(at + w * 4) >> shift) & 0x01010101u) << w;
  return all;
}

// the same of a word whose bit i is of value i
__device__ __forceinline__ u32 spread_bits(u32 ordered) {
  u32 all = 0;
  for (int i = 0; i < 32; i++) all |= ((ordered >> i) & 1u) << ((i & 3) * 8 + (i >> 2));
  return all;
}

// number i of the 16 or 8 bits of a word is replaced
__device__ __forceinline__ void put_half(u32* words, size_t i, u32 value) {
  int shift = (i & 1) * 16;
  words[i >> 1] = (words[i >> 1] & ~(0xFFFFu << shift)) | (value & 0xFFFFu) << shift;
}
__device__ __forceinline__ void put_byte(u32* words, size_t i, u32 value) {
  int shift = (i & 3) * 8;
  words[i >> 2] = (words[i >> 2] & ~(0xFFu << shift)) | (value & 0xFFu) << shift;
}

#define WEIGHT_SCALE 16.0f  // of float16 weights, see `raw.cuh`

// Constants that are kept in registers; see `opaque_masks`.
struct Masks {
  u32 low, high, sixteenth;  // the first and the second nibbles of two half words; 1/16 twice
};
