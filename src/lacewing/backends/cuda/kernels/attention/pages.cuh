// Where the KV cache of a state stands (`gpu/pages.py`), and how the words of a row become values. KV, a macro of the kernel, is the
// precision.
#pragma once
#include "step.cuh"

enum Precision { f16, f32, q8_0 };

// the rows of one part in a page, (head, position, width): words of the page before them, of a row, and of its values
struct Rows {
  int at, heads, width, words, value_words;
};

struct Pages {
  int tables, table_width, page_words;
  Rows keys, values, index;
};

// the row of a head at a position
__device__ __forceinline__ u32* row_at(const Step& step, u32* base, const Pages& pages, const Rows& rows, int row, int head, int position) {
  int page = step.words[pages.tables + row * pages.table_width + (position >> 7)];
  return base + (size_t)page * pages.page_words + rows.at + (size_t)(head * 128 + (position & 127)) * rows.words;
}

// four codes of a block of 32 values, one value a lane, as GGUF's Q8_0 rounds them: halves away from zero; the scale is stored
__device__ __forceinline__ u32 q8_word(float value, unsigned short* scale_at) {
  u32 size = __float_as_uint(value) & 0x7FFFFFFFu;  // compared as integers, a NaN is the largest, and shows
  for (int n = 16; n > 0; n >>= 1) size = max(size, __shfl_xor_sync(ALL, size, n));
  float scale = __uint_as_float(size) / 127.0f, code = scale > 0.0f ? value * (1.0f / scale) : 0.0f;
  u32 word = ((u32)(int)truncf(code + copysignf(0.5f, code)) & 0xFFu) << (threadIdx.x % 4 * 8);
  word |= __shfl_xor_sync(ALL, word, 1);
  word |= __shfl_xor_sync(ALL, word, 2);
  if (threadIdx.x % WARP == 0) *scale_at = half_bits(scale);
  return word;
}

// values of a word: 2, 1 or 4
template <Precision P>
__device__ constexpr int in_word() {
  return P == f16 ? 2 : P == f32 ? 1 : 4;
}

// the values of word `w` of a row
template <Precision P>
__device__ __forceinline__ void word_values(const u32* row, const Rows& rows, int w, float* out) {
  u32 word = row[w];
  if constexpr (P == f16) {
    float2 two = halves_float(word);
    out[0] = two.x, out[1] = two.y;
  } else if constexpr (P == f32) {
    out[0] = __uint_as_float(word);
  } else {
    int block = w >> 3;
    float scale = half_float(row[rows.value_words + (block >> 1)] >> ((block & 1) * 16));
#pragma unroll
    for (int i = 0; i < 4; i++) out[i] = (float)((int)(word << (24 - 8 * i)) >> 24) * scale;
  }
}
