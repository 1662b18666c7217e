// Stores keys, values and keys of an index at the row and position of every token. A warp a head of one of them. Grid: tokens, heads of
// all parts.
//! KV f16 f32 q8_0
//! threads 32
#include "pages.cuh"

// zeros stand behind the last value of a row
__device__ __forceinline__ float value_at(const float* from, int i, int width) { return i < width ? from[i] : 0.0f; }

extern "C" __global__ void __launch_bounds__(THREADS) write_kv(Step step, View k, View v, View index, u32* const* store, Pages pages) {
  int t = blockIdx.x, head = blockIdx.y, lane = threadIdx.x;
  View from = k;
  Rows rows = pages.keys;
  if (head >= rows.heads) {
    head -= rows.heads;
    from = v.at ? v : index;
    rows = v.at ? pages.values : pages.index;
    if (v.at && head >= rows.heads) {
      head -= rows.heads;
      from = index;
      rows = pages.index;
    }
  }
  u32* to = row_at(step, *store, pages, rows, step.row(t), head, step.position(t));
  const float* values = from.row(t) + head * rows.width;
  if (KV == f32) {
    for (int w = lane; w < rows.value_words; w += WARP) to[w] = __float_as_uint(value_at(values, w, rows.width));
  } else if (KV == f16) {
    for (int w = lane; w < rows.value_words; w += WARP) {
      to[w] = half_bits(value_at(values, 2 * w, rows.width)) | half_bits(value_at(values, 2 * w + 1, rows.width)) << 16;
    }
  } else {
    // blocks of 32 values, as GGUF's Q8_0 rounds them: halves away from zero
    u32 scales = 0;
    for (int block = 0; block < rows.width / 32; block++) {
      float value = values[block * 32 + lane];
      u32 size = __float_as_uint(value) & 0x7FFFFFFFu;  // compared as integers, a NaN is the largest, and shows
      for (int n = 16; n > 0; n >>= 1) size = max(size, __shfl_xor_sync(ALL, size, n));
      float scale = __uint_as_float(size) / 127.0f, code = scale > 0.0f ? value * (1.0f / scale) : 0.0f;
      u32 byte = (u32)(int)truncf(code + copysignf(0.5f, code)) & 0xFFu, word = byte << (lane % 4 * 8);
      word |= __shfl_xor_sync(ALL, word, 1);
      word |= __shfl_xor_sync(ALL, word, 2);
      if (lane % 4 == 0) to[block * 8 + lane / 4] = word;
      scales = block & 1 ? scales | half_bits(scale) << 16 : half_bits(scale);
      if (lane == 0 && (block & 1 || block + 1 == rows.width / 32)) to[rows.value_words + block / 2] = scales;
    }
  }
}
