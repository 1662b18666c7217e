// Activations as float16 for products on tensor cores (`half_form.cuh`). A row is kept in registers, EACH fours a thread; one that
// is too wide for that is read twice.
// LISTED: pairs of a token and an expert, `tile` rows for each tile of the list (`expert_lists.cu`). Grid: rows.
//! arch 80
//! TILED 0 1
//! LISTED 0 1
//! EACH 1 2 4 8 16
//! early
//! threads 512
#include "half_form.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    half_rows(Step step, View x, const int* list, int most_tiles, int tile, int active, int separate, int columns, int by_rows, HalfForm to) {
  int row = blockIdx.x, quads = (columns + 127) / 128 * 32;
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
  bool aligned = ((u64)from & 15) == 0;
  float4 v[EACH];
  auto load = [&](int start) {
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      int c = 4 * (start + threadIdx.x + e * THREADS);
      if (aligned && c + 3 < columns) {
        v[e] = *(const float4*)(from + c);
      } else {
        v[e] = make_float4(c < columns ? from[c] : 0.0f, c + 1 < columns ? from[c + 1] : 0.0f, c + 2 < columns ? from[c + 2] : 0.0f,
                           c + 3 < columns ? from[c + 3] : 0.0f);
      }
    }
  };
  float most = 0.0f;
  for (int start = 0; start < quads; start += EACH * THREADS) {
    load(start);
#pragma unroll
    for (int e = 0; e < EACH; e++) most = fmaxf(most, largest_of(v[e]));
  }
  float inverse = begin_halves(to, row, block_max(most));
  for (int start = 0; start < quads; start += EACH * THREADS) {
    if (quads > EACH * THREADS) load(start);
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      int i = start + threadIdx.x + e * THREADS;
      if (i < quads) store_halves(to, TILED, row, quads / 2, i, v[e], inverse);
    }
  }
}
