// The largest of the parts becomes the next token of its row. Grid: tokens.
//! early
#include "ptx.cuh"
#include "larger.cuh"
#include "next_token.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) feed_back(Step step, const uint2* best, int parts, int vocabulary, int fixed) {
  start_after();
  wait_before();
  uint2 mine = nothing();
  for (int i = threadIdx.x; i < parts; i += THREADS) mine = larger(mine, best[blockIdx.x * parts + i]);
  mine = largest_of_all(mine);
  if (threadIdx.x == 0) feed(step, blockIdx.x, mine.y, vocabulary, fixed);
}
