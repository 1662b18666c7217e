// The forms that products take, made by the kernel that makes the values: for how many tokens which one.
#pragma once
#include "half_form.cuh"
#include "bytes.cuh"

struct Forms {
  Bytes bytes, many_bytes;
  HalfForm halves;
  int bytes_most;            // tokens up to which there are bytes; 0: none
  int bytes_first;           // tokens from which there are bytes of many; 0: none
  int few_first, few_most;   // tokens from and up to which there is float16, row after row; 0: none
  int many;                  // more than few_most tokens: 0 none, 1 row after row, 2 tiled
};

DEVICE bool has_few(const Forms& f, int tokens) { return f.few_first && tokens >= f.few_first && tokens <= f.few_most; }
DEVICE bool has_many(const Forms& f, int tokens) { return f.many && tokens > f.few_most; }

// Stores a row of `quads` float4 values; v[e] of a thread is number threadIdx.x + e * THREADS, zero past the end. All threads of the block call it.
template <int Each>
DEVICE void store_forms(const Forms& f, int tokens, int row, int quads, const float4 (&v)[Each]) {
  auto store = [&](const Bytes& to) {
#pragma unroll
    for (int e = 0; e < Each; e++) {
      int i = threadIdx.x + e * THREADS;
      if (i < (quads + WARP - 1) / WARP * WARP) store_bytes(to, row, quads / 8, i, v[e], i < quads);  // whole warps
    }
  };
  if (tokens <= f.bytes_most) store(f.bytes);
  if (f.bytes_first && tokens >= f.bytes_first) store(f.many_bytes);
#if __CUDA_ARCH__ >= 800
  bool many = has_many(f, tokens);
  if (many || has_few(f, tokens)) {
    float most = 0.0f;
#pragma unroll
    for (int e = 0; e < Each; e++) most = fmaxf(most, largest_of(v[e]));
    float inverse = begin_halves(f.halves, row, block_max(most));
#pragma unroll
    for (int e = 0; e < Each; e++) {
      int i = threadIdx.x + e * THREADS;
      if (i < quads) store_halves(f.halves, many && f.many == 2, row, quads / 2, i, v[e], inverse);
    }
  }
#endif
}

// The same of a value a thread, for a warp 32 columns from a multiple of 32 on; float16 as it is, of values that are known not to overflow.
DEVICE void store_form_group(const Forms& f, int tokens, int row, int columns, int column, float v) {
  if (tokens <= f.bytes_most) store_group(f.bytes, (row * columns + column) / 32, v);
  const bool many = has_many(f, tokens);
  if (many || has_few(f, tokens)) store_half_group(f.halves, many && f.many == 2, row, columns / 8, column, v);
}
