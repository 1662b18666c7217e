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

// values 4 * four to 4 * four + 3 of the row, which has so many chunks
DEVICE void store_halves(const HalfForm& to, bool tiled, int row, int chunks, int four, float4 v, float inverse) {
  int block = four >> 5, g = four >> 3 & 3, j = four & 7;
  u32 first = halves_of(v.x * inverse, v.z * inverse), second = halves_of(v.y * inverse, v.w * inverse);
  if (!tiled) {
    size_t chunk = (size_t)row * chunks + 16 * block + 4 * (j & 3) + g;
    *(uint2*)(to.values + chunk * 4 + 2 * (j >> 2)) = make_uint2(first, second);
    return;
  }
  int i = 16 * block + 4 * (j & 3) + 2 * (j >> 2);  // the chunk of `first`; that of `second` is beside it
  u32* atom = to.values + (((size_t)(i >> 3) * to.atoms + row / 8) * 8 + row % 8) * 32 + g;
  atom[((i & 7) ^ (row & 7)) * 4] = first;
  atom[((i & 7 | 1) ^ (row & 7)) * 4] = second;
}
