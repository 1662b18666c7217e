// Where the rows of a joined matrix go.
#pragma once
#include "step.cuh"

struct Outs {
  View view[4];
  int end[4];  // row r goes to the first view with r < end
};

// without an index, for which the views would have to be in memory
__device__ __forceinline__ View view_of(const Outs& outs, int i) {
  return i == 0 ? outs.view[0] : i == 1 ? outs.view[1] : i == 2 ? outs.view[2] : outs.view[3];
}

__device__ __forceinline__ void put(const Outs& outs, int t, int row, float value) {
  int before = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (row < outs.end[i]) {
      outs.view[i].row(t)[row - before] = value;
      return;
    }
    before = outs.end[i];
  }
}

// what becomes of a product; softcap 0: nothing
__device__ __forceinline__ float finished(float y, const float* bias, int row, float scale, float softcap) {
  if (bias) y += bias[row];
  y *= scale;
  return softcap > 0.0f ? softcap * tanhf(y / softcap) : y;
}
