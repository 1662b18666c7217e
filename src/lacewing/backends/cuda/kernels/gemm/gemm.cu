// x @ weight.T for many tokens: tiles of 64 rows and 64 tokens, a group of 32 columns at a time in shared memory, in float32.
// Grid: rows / 64, tokens / 64, splits of the columns.
//! QUANT quants
#include "values.cuh"
#include "joined.cuh"
#include "outs.cuh"

#define TILE 64
#define OWN 4  // rows, and tokens, of a thread: THREADS is (TILE / OWN)^2

extern "C" __global__ void __launch_bounds__(THREADS)
    gemm(Step step, View x, Planes planes, Outs outs, const float* bias, int rows, int groups, int columns, int by_rows, float scale,
         float softcap, float4* partial, u32* counters) {
  __shared__ __align__(16) float weights[32][TILE + 4], inputs[32][TILE + 4];
  int first_row = blockIdx.x * TILE, first = blockIdx.y * TILE, count = by_rows ? step.output_count() : step.count();
  int mine = threadIdx.x % TILE, quarter = threadIdx.x / TILE;
  int across = threadIdx.x % (TILE / OWN), down = threadIdx.x / (TILE / OWN);
  int t = min(first + mine, count - 1);
  const float* from = x.row(by_rows ? step.output(step.first_output() + t) : t);
  float sums[OWN][OWN] = {};
  int end = (long long)groups * (blockIdx.z + 1) / gridDim.z;
  for (int group = (long long)groups * blockIdx.z / gridDim.z; group < end; group++) {
    if (quarter == 0) {
      float w[32];
      load_values(planes, (size_t)min(first_row + mine, rows - 1) * groups + group, w);
#pragma unroll
      for (int i = 0; i < 32; i++) weights[i][mine] = w[i];
    } else {
      for (int i = quarter - 1; i < 32; i += 3) {
        int column = group * 32 + i;
        inputs[i][mine] = column < columns ? from[column] : 0.0f;
      }
    }
    __syncthreads();
#pragma unroll 8
    for (int i = 0; i < 32; i++) {
      float4 w = *(const float4*)&weights[i][across * OWN], v = *(const float4*)&inputs[i][down * OWN];
      float ws[OWN] = {w.x, w.y, w.z, w.w}, vs[OWN] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int a = 0; a < OWN; a++)
#pragma unroll
        for (int b = 0; b < OWN; b++) sums[a][b] += ws[a] * vs[b];
    }
    __syncthreads();
  }
  if (!joined<OWN>([&](int i) -> float* { return sums[i]; }, partial, counters)) return;
#pragma unroll
  for (int b = 0; b < OWN; b++) {
    int to = first + down * OWN + b;
    if (to >= count) continue;
#pragma unroll
    for (int a = 0; a < OWN; a++) {
      int row = first_row + across * OWN + a;
      if (row < rows) put(outs, to, row, finished(sums[a][b], bias, row, scale, softcap));
    }
  }
}
