// Stores keys, values and keys of an index at the row and position of every token. A warp a head of one of them. Grid: tokens, heads of
// all parts.
//! KV f16 f32 q8_0
//! threads 32
//! early
#include "ptx.cuh"
#include "pages.cuh"

// zeros stand behind the last value of a row
__device__ __forceinline__ float value_at(const float* from, int i, int width) { return i < width ? from[i] : 0.0f; }

extern "C" __global__ void __launch_bounds__(THREADS) write_kv(Step step, View k, View v, View index, u32* const* store, Pages pages) {
  start_after();
  wait_before();
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
    int blocks = rows.width / 32;
    unsigned short* scales = (unsigned short*)(to + rows.value_words);
    for (int block = 0; block < blocks; block++) {
      u32 word = q8_word(values[block * 32 + lane], scales + block);
      if (lane % 4 == 0) to[block * 8 + lane / 4] = word;
    }
    if (lane == 0 && blocks & 1) scales[blocks] = 0;
  }
}
