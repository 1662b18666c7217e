// Activations as float16 for products on tensor cores: a row divided by the power of two that brings its largest magnitude below 1024, so
// that none overflows and small ones keep their digits; `scales` has that power. 128 columns are 16 chunks of eight values, zeros behind the last
// column; v(g, i) is value i of their group g of 32:
// - for `gemm_mma`, row after row: chunk 4 w + g has v(g, 4 w + 0, 2, 1, 3, 16, 18, 17, 19), as `halves` gives weights;
// - for `gemm_wgmma` (TILED) chunk 2 s + h has v(0 .. 3, 4 (s / 2) + 16 (s % 2) + h + 0 and 2). Of 64 columns and eight rows 1 KiB stand together, as
//   shared memory has them: eight rows of eight chunks, exchanged by the row's number; `atoms` of these a piece of 64 columns.
// LISTED: pairs of a token and an expert, `tile` rows for each tile of the list (`expert_lists.cu`). Grid: rows.
//! arch 80
//! TILED 0 1
//! LISTED 0 1
//! early
#include "ptx.cuh"

DEVICE float block_max(float v) {
  __shared__ float parts[WARP];
  v = warp_max(v);
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = v;
  __syncthreads();
  return warp_max(threadIdx.x % WARP < THREADS / WARP ? parts[threadIdx.x % WARP] : 0.0f);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    half_rows(Step step, View x, const int* list, int most_tiles, int tile, int active, int separate, int columns, int by_rows, uint4* out,
              float* scales, int atoms) {
  int row = blockIdx.x, chunks = (columns + 127) / 128 * 16;
  start_after();
  wait_before();
#if LISTED
  int which = row / tile, inside = row % tile;
  if (which >= list[0] || inside >= list[3 + 3 * which]) return;
  int pair = list[1 + 3 * most_tiles + list[2 + 3 * which] + inside];
  const float* from = x.row(pair / active) + (separate ? pair % active * columns : 0);
#else
  const float* from = x.row(by_rows ? step.output(step.first_output() + row) : row);
#endif
  float most = 0.0f;
  for (int c = threadIdx.x; c < columns; c += THREADS) most = fmaxf(most, fabsf(from[c]));
  most = block_max(most);
  int exponent = min(max((int)(__float_as_uint(most) >> 23) - 136, -100), 100);  // most is from 2^(exponent + 9) on
  float inverse = __uint_as_float((u32)(127 - exponent) << 23);
  if (threadIdx.x == 0) scales[row] = __uint_as_float((u32)(exponent + 127) << 23);
  auto value = [&](int c) { return c < columns ? from[c] * inverse : 0.0f; };
  for (int i = threadIdx.x; i < chunks; i += THREADS) {
    u32 v[4];
#if TILED
    int s = i >> 1 & 7, c = i / 16 * 128 + (s >> 1) * 4 + (s & 1) * 16 + (i & 1), piece = i >> 3;
#pragma unroll
    for (int g = 0; g < 4; g++) v[g] = halves_of(value(c + 32 * g), value(c + 32 * g + 2));
    out[(((size_t)piece * atoms + row / 8) * 8 + row % 8) * 8 + ((i & 7) ^ (row & 7))] = make_uint4(v[0], v[1], v[2], v[3]);
#else
    int c = i / 16 * 128 + (i & 3) * 32 + (i >> 2 & 3) * 4;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      int at = c + (k & 1) + (k >> 1) * 16;
      v[k] = halves_of(value(at), value(at + 2));
    }
    out[(size_t)row * chunks + i] = make_uint4(v[0], v[1], v[2], v[3]);
#endif
  }
}
