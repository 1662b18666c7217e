// x *= sqrt(mean(like^2) / max(mean(x^2), least)), in place. Grid: 1, tokens.
//! early
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) match_magnitude(View x, View like, int width, float least) {
  start_after();
  wait_before();
  float *values = x.row(blockIdx.y), *others = like.row(blockIdx.y), mine = 0.0f, theirs = 0.0f;
  for (int i = threadIdx.x; i < width; i += THREADS) {
    mine += values[i] * values[i];
    theirs += others[i] * others[i];
  }
  mine = block_sum(mine) / width;
  theirs = block_sum(theirs) / width;
  float factor = sqrtf(theirs / (mine < least ? least : mine));
  for (int i = threadIdx.x; i < width; i += THREADS) values[i] *= factor;
}
