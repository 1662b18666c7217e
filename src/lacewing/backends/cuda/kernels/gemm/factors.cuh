// What products of bytes are multiplied with: of a group of weights, and of a group of activations. The integer product of 32 columns (of
// 16, if these have scales of their own) begins at MAGIC, so that it is a float as it stands; `offset` takes MAGIC away again in the same
// instruction that multiplies with the scale, whose last two bits are dropped so that this is exact.
#pragma once
#include "raw.cuh"
#include "bytes.cuh"

#ifdef HALF_SCALES
#ifdef HAS_MIN
typedef float4 RowFactors;  // scales, then minimums
DEVICE RowFactors row_factors(const Group& g) { return make_float4(g.scale.x, g.scale.y, g.min.x, g.min.y); }
#else
typedef float2 RowFactors;  // scales
DEVICE RowFactors row_factors(const Group& g) { return g.scale; }
#endif
#else
#ifdef HAS_MIN
typedef float2 RowFactors;  // scale, minimum
DEVICE RowFactors row_factors(const Group& g) { return make_float2(g.scale.x, g.min.x); }
#else
struct RowFactors { float x; };
DEVICE RowFactors row_factors(const Group& g) { return {g.scale.x}; }
#endif
#endif

DEVICE float magic_offset(float scale) { return -12582912.0f * scale; }

#if defined(HALF_SCALES) && defined(HAS_MIN)
typedef float4 TokenFactors;  // scale, offset; the scale times the sums of the first and of the last 16 codes
#else
typedef float2 TokenFactors;  // scale; offset, or where there is a minimum the scale times the sum of the codes
#endif
DEVICE TokenFactors token_factors(uint2 f) {
  const float scale = __uint_as_float(f.x & ~3u);
#ifdef HAS_MIN
  const float lower = scale * (float)(short)(f.y & 0xFFFFu), upper = scale * (float)((int)f.y >> 16);
#ifdef HALF_SCALES
  return make_float4(scale, magic_offset(scale), lower, upper);
#else
  return make_float2(scale, lower + upper);
#endif
#else
  return make_float2(scale, magic_offset(scale));
#endif
}

// What a group adds to the sums of rows g and g + 8 and tokens 2 t and 2 t + 1, thread (g, t) of a warp having them.
DEVICE void add_group(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1, const RowFactors (&r)[2], const TokenFactors (&x)[2],
                      const float (&offset)[2], const int (&magic)[4]) {
  int p[4];
#ifdef HALF_SCALES
  int q[4];
  mma(p, a[0], a[1], b0, magic);
  mma(q, a[2], a[3], b1, magic);
#else
  mma(p, a[0], a[1], a[2], a[3], b0, b1, magic);
#endif
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const RowFactors& row = r[i >> 1];
    const TokenFactors& token = x[i & 1];
    float y = fmaf(row.x, fmaf(token.x, __int_as_float(p[i]), offset[i & 1]), sums[i]);
#ifdef HALF_SCALES
    y = fmaf(row.y, fmaf(token.x, __int_as_float(q[i]), offset[i & 1]), y);
#ifdef HAS_MIN
    y = fmaf(-row.z, token.z, y);
    y = fmaf(-row.w, token.w, y);
#endif
#elif defined(HAS_MIN)
    y = fmaf(-row.y, token.y, y);
#endif
    sums[i] = y;
  }
}

DEVICE float offset_of(const TokenFactors& x) {
#if defined(HAS_MIN) && !defined(HALF_SCALES)
  return magic_offset(x.x);
#else
  return x.y;
#endif
}

// asked for at this place, and not where they are needed
DEVICE uint2 load_scales(const uint2* p) {
  uint2 v;
  asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
  return v;
}
