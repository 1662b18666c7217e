// Eight neighbouring values of a row of keys or values as float16, of pages in float16 or q8_0.
#pragma once
#include "capped.cuh"
#include "pages.cuh"

template <Precision P>
DEVICE uint4 load_eight(const u32* row, const Rows& rows, int chunk) {
  if constexpr (P == f16) {
    return ((const uint4*)row)[chunk];
  } else {
    u32 a, b;
    if (rows.words & 1) {  // no multiple of 8 bytes
      a = row[2 * chunk], b = row[2 * chunk + 1];
    } else {
      const uint2 both = ((const uint2*)row)[chunk];
      a = both.x, b = both.y;
    }
    a ^= 0x80808080u, b ^= 0x80808080u;  // 128 more, unsigned
    const float scale = half_float(row[rows.value_words + (chunk >> 3)] >> ((chunk & 4) << 2));
    const u32 s = twice(scale), less = 0xE480E480u;  // -1152
    return make_uint4(mul2(add2(__byte_perm(a, 0x64646464u, 0x4140), less), s), mul2(add2(__byte_perm(a, 0x64646464u, 0x4342), less), s),
                      mul2(add2(__byte_perm(b, 0x64646464u, 0x4140), less), s), mul2(add2(__byte_perm(b, 0x64646464u, 0x4342), less), s));
  }
}

struct Query {
  int heads, key_heads, width, value_width, window, span, most;
  float scale, softcap;
};
