// What the fast kernels have of a quant, on top of its own header:
//   Raw, load_raw, no_raw              what a thread loads of 32 values; of floats, of a part of them (`load_part`)
//   dot_group(raw, xa, xb, f)          their product with activations in bytes
//   Scale, scale_of(raw)               scales as pairs of one float16
//   halves(raw, scale, w, masks, v)    values 4w to 4w + 3 (v[0]: the first and third, v[1]: the second and fourth) and those 16 on (v[2],
//                                      v[3]) as float16, times WEIGHT_SCALE, which keeps small ones out of the subnormal numbers
// Quants with much traffic give their own (RAW, HALVES_GIVEN); a code in the low bits of 0x6400 is the float16 1024 + code, one 4 bits up
// 1024 + 16 * code.
#pragma once
#include "quant.cuh"
#include "ptx.cuh"

#ifndef PARTS
#define PARTS 1
#endif

// The assembler makes constants anew for each use, unless they come from memory. The threads of a block write the same.
DEVICE Masks opaque_masks() {
  __shared__ __align__(8) u32 room[2];
  Masks m = {0x000F000Fu, 0x00F000F0u, 0x2C002C00u};
  asm volatile("st.volatile.shared.v2.u32 [%2], {%0, %1}; ld.volatile.shared.v2.u32 {%0, %1}, [%2];"
               : "+r"(m.low), "+r"(m.high)
               : "r"(shared_address(room))
               : "memory");
  return m;
}

#ifndef FLOATS
// Of 32 activations in bytes: their scale; the scale times the sum of all codes, and of those from the 16th on.
struct Input { float scale, sums, upper; };
// of the two words that `bytes.cuh` has of a group
DEVICE Input input_of(uint2 f) {
  float scale = __uint_as_float(f.x), upper = scale * (float)((int)f.y >> 16);
  return {scale, scale * (float)(short)(f.y & 0xFFFFu) + upper, upper};
}

#ifndef RAW
typedef Group Raw;
DEVICE Raw load_raw(const Planes& p, size_t group) { return load_group(p, group); }
DEVICE const Group& group_of(const Raw& r) { return r; }
#endif
DEVICE Raw load_part(const Planes& p, size_t group, int) { return load_raw(p, group); }

DEVICE int dot16(int start, uint4 w, uint4 x) {
  start = __dp4a((int)w.x, (int)x.x, start);
  start = __dp4a((int)w.y, (int)x.y, start);
  start = __dp4a((int)w.z, (int)x.z, start);
  return __dp4a((int)w.w, (int)x.w, start);
}

DEVICE float dot_group(const Raw& raw, uint4 xa, uint4 xb, const Input& f) {
  const Group g = group_of(raw);
#ifdef HALF_SCALES
  float y = f.scale * (g.scale.x * from_magic(dot16(MAGIC, g.a, xa)) + g.scale.y * from_magic(dot16(MAGIC, g.b, xb)));
#ifdef HAS_MIN
  y -= g.min.x * (f.sums - f.upper) + g.min.y * f.upper;
#endif
#else
  float y = f.scale * g.scale.x * from_magic(dot16(dot16(MAGIC, g.a, xa), g.b, xb));
#ifdef HAS_MIN
  y -= g.min.x * f.sums;
#endif
#endif
  return y;
}

#ifndef HALVES_GIVEN
struct Scale { u32 a, b, least_a, least_b; };
DEVICE Scale scale_of(const Raw& r) {
  const Group g = group_of(r);
  return {twice(g.scale.x * WEIGHT_SCALE), twice(g.scale.y * WEIGHT_SCALE), twice(g.min.x * -WEIGHT_SCALE), twice(g.min.y * -WEIGHT_SCALE)};
}
// of the bytes 0 and 2, or 1 and 3, which are 128 more here, unsigned
DEVICE u32 byte_halves(u32 codes, int selector, u32 scale, u32 min) {
  const u32 v = add2(__byte_perm(codes, 0x64646464u, selector), 0xE480E480u);
#ifdef HAS_MIN
  return fma2(v, scale, min);
#else
  return mul2(v, scale);
#endif
}
DEVICE void halves(const Raw& r, const Scale& s, int w, const Masks&, u32 (&v)[4]) {
  const Group g = group_of(r);
  const u32 a = word_of(g.a, w) ^ 0x80808080u, b = word_of(g.b, w) ^ 0x80808080u;
  v[0] = byte_halves(a, 0x4240, s.a, s.least_a);
  v[1] = byte_halves(a, 0x4341, s.a, s.least_a);
  v[2] = byte_halves(b, 0x4240, s.b, s.least_b);
  v[3] = byte_halves(b, 0x4341, s.b, s.least_b);
}
#endif
#endif

#if !defined(FLOATS) || defined(HALVES_GIVEN)
// zeros
DEVICE Raw no_raw() {
  Raw raw = {};
  return raw;
}
#endif
