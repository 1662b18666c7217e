// Activations as float16 for products on tensor cores: a row divided by the power of two that brings its largest magnitude below 1024, so
// that none overflows and small ones keep their digits; `scales` has that power. 128 columns are 16 chunks of eight values, zeros behind the
// last column; v(g, i) is value i of their group g of 32:
// - for `gemm_mma` and `gemm_few`, row after row: chunk 4 w + g has v(g, 4 w + 0, 2, 1, 3, 16, 18, 17, 19), as `halves` gives weights;
// - for `gemm_wgmma` (tiled) chunk 2 s + h has v(0 .. 3, 4 (s / 2) + 16 (s % 2) + h + 0 and 2). Of 64 columns and eight rows 1 KiB stand
//   together, as shared memory has them: eight rows of eight chunks, exchanged by the row's number; `atoms` of these a piece of 64 columns.
#pragma once
#include "ptx.cuh"

struct HalfForm {
  u32* values;
  float* scales;
  int atoms;
};

// over all threads of a block, of numbers that are not negative; every thread gets it
DEVICE float block_max(float v) {
  __shared__ float parts[WARP];
  v = warp_max(v);
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = v;
  __syncthreads();
  return warp_max(threadIdx.x % WARP < THREADS / WARP ? parts[threadIdx.x % WARP] : 0.0f);
}
DEVICE float largest_of(float4 v) { return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))); }

// Of a row whose largest magnitude is `most`: its power of two is stored by one thread; what to multiply the values with.
DEVICE float begin_halves(const HalfForm& to, int row, float most) {
  int exponent = min(max((int)(__float_as_uint(most) >> 23) - 136, -100), 100);  // most is from 2^(exponent + 9) on
  if (threadIdx.x == 0) to.scales[row] = __uint_as_float((u32)(exponent + 127) << 23);
  return __uint_as_float((u32)(127 - exponent) << 23);
}

// Where the words of values 4 * four to 4 * four + 3 of a row stand that has so many chunks: `second` 0 of the first and third, 1 of the others.
DEVICE u32* half_word(const HalfForm& to, bool tiled, int row, int chunks, int four, int second) {
  int g = four >> 3 & 3, j = four & 7, i = 16 * (four >> 5) + 4 * (j & 3);
  if (!tiled) return to.values + ((size_t)row * chunks + i + g) * 4 + 2 * (j >> 2) + second;
  i += 2 * (j >> 2) + second;
  return to.values + (((size_t)(i >> 3) * to.atoms + row / 8) * 8 + row % 8) * 32 + ((i & 7) ^ (row & 7)) * 4 + g;
}

DEVICE void store_halves(const HalfForm& to, bool tiled, int row, int chunks, int four, float4 v, float inverse) {
  u32 first = halves_of(v.x * inverse, v.z * inverse), second = halves_of(v.y * inverse, v.w * inverse);
  u32* word = half_word(to, tiled, row, chunks, four, 0);
  if (!tiled) {
    *(uint2*)word = make_uint2(first, second);
  } else {
    *word = first;
    *half_word(to, tiled, row, chunks, four, 1) = second;
  }
}

// A value a thread, a warp 32 columns from a multiple of 32 on, not divided. All threads of a warp.
DEVICE void store_half_group(const HalfForm& to, bool tiled, int row, int chunks, int column, float v) {
  const float other = __shfl_xor_sync(ALL, v, 2);
  if (!(column & 2)) *half_word(to, tiled, row, chunks, column >> 2, column & 1) = halves_of(v, other);
  if (column == 0) to.scales[row] = 1.0f;
}
