// The linears of the chosen experts: a warp a row of one of them for one token. Parts of the id -1 are left.
// Grid: rows * parts / warps, active, tokens.
//! QUANT quants
//! early
#include "values.cuh"
#include "ptx.cuh"
#include "outs.cuh"

// An expert has rows * parts rows of the matrix: those of part 0, then of part 1, or `interleaved` by turns. Part p goes to view p.
extern "C" __global__ void __launch_bounds__(THREADS)
    expert_gemv(View x, View ids, View factor, Planes planes, Outs outs, const float* bias, int rows, int parts, int groups, int columns,
                int active, int separate, int interleaved) {
  int r = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP, a = blockIdx.y, t = blockIdx.z;
  start_after();
  wait_before();
  int expert = ids.ids(t)[a];
  if (r >= rows * parts || expert < 0) return;
  const float* from = x.row(t) + (separate ? a * columns : 0);
  size_t row = (size_t)expert * rows * parts + r;
  float sum = 0.0f;
  for (int group = lane; group < groups; group += WARP) {
    float w[32];
    load_values(planes, row * groups + group, w);
    int width = min(32, columns - group * 32);
    if (width == 32) {
#pragma unroll
      for (int c = 0; c < 32; c++) sum += w[c] * from[group * 32 + c];
    } else {
#pragma unroll
      for (int c = 0; c < 32; c++) sum += c < width ? w[c] * from[group * 32 + c] : 0.0f;
    }
  }
  sum = warp_sum(sum);
  if (lane) return;
  if (factor.at) sum *= factor.row(t)[a];
  if (bias) sum += bias[row];
  int part = interleaved ? r % parts : r / rows, at = interleaved ? r / parts : r % rows;
  outs.view[part].row(t)[a * rows + at] = sum;
}
