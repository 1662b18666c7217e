// The largest logit of parts of each row: (value, id) a block; the lowest id of equals. Grid: parts, rows.
//! early
#include "ptx.cuh"
#include "larger.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) argmax(const float* logits, uint2* best, int part, int vocabulary) {
  start_after();
  wait_before();
  uint2 mine = nothing();
  int end = min((int)(blockIdx.x + 1) * part, vocabulary);
  for (int i = blockIdx.x * part + threadIdx.x; i < end; i += THREADS) {
    mine = larger(mine, judged(logits[(size_t)blockIdx.y * vocabulary + i], i));
  }
  mine = largest_of_all(mine);
  if (threadIdx.x == 0) best[blockIdx.y * gridDim.x + blockIdx.x] = mine;
}
