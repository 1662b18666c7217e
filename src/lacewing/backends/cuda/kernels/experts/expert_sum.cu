// The linear of all active experts of a token and the sum of what they give: as `expert_bytes`, then `combine`. A block makes `sets` times
// ROWS rows; its warps take a set and an expert by turns, with all that a thread needs of a row of up to 32 groups on its way at once.
// Grid: rows / (sets * ROWS), tokens. Shared memory: a word for each expert and row, and two an expert.
//! QUANT coded
//! early
#define ROWS 4
#include "raw.cuh"
#include "bytes.cuh"
#include "inputs.cuh"

extern __shared__ float parts[];

extern "C" __global__ void __launch_bounds__(THREADS, sizeof(Raw) > 32 ? 3 : 4)
    expert_sum(u32* codes, uint2* scales, View ids, View weights, Planes planes, const float* bias, View add, View out, int rows, int groups,
               int active, int sets) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = blockIdx.y, each = sets * ROWS, begin = blockIdx.x * each;
  float* weighs = parts + each * active;
  int *chosen = (int*)(weighs + active), mine = begin + threadIdx.x;
  bool ends = threadIdx.x < each && mine < rows;
  start_after();
  wait_before();
  for (int a = threadIdx.x; a < active; a += THREADS) {
    chosen[a] = ids.ids(t)[a];
    if (weights.at) weighs[a] = weights.row(t)[a];
  }
  float more = ends && add.at ? add.row(t)[mine] : 0.0f;
  for (int item = warp; item < sets * active; item += THREADS / WARP) {
    int a = item % active, set = item / active, row = begin + set * ROWS, expert = ids.ids(t)[a];
    size_t from = (size_t)(t * active + a) * groups;
    Activations x = activations({codes, scales}, from + min(lane, groups - 1));
    if (expert < 0 || row >= rows) continue;
    float sums[ROWS] = {};
    for (int start = 0; start < groups; start += WARP) {
      int group = start + lane;
      Raw raw[ROWS];
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        u32 first = ((u32)expert * rows + min(row + r, rows - 1)) * groups;
        raw[r] = group < groups ? load_raw(planes, first + group) : no_raw();
      }
      if (start) x = activations({codes, scales}, from + min(group, groups - 1));
#pragma unroll
      for (int r = 0; r < ROWS; r++) sums[r] += dot_group(raw[r], x.a, x.b, x.f);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float y = warp_sum(sums[r]);
      if (lane == r && row + r < rows) parts[a * each + set * ROWS + r] = bias ? y + bias[(size_t)expert * rows + row + r] : y;
    }
  }
  __syncthreads();
  if (!ends) return;
  float sum = 0.0f;
  for (int a = 0; a < active; a++) {
    if (chosen[a] < 0) continue;
    float y = parts[a * each + threadIdx.x];
    sum = weights.at ? fmaf(y, weighs[a], sum) : sum + y;
  }
  out.row(t)[mine] = add.at ? sum + more : sum;
}
