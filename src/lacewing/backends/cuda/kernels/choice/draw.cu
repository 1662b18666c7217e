// Draws one of the largest logits of each row, largest first, which becomes the row's next token. In float32: who draws in float64
// may find another one, and looks. Grid: tokens; a thread a candidate.
//! threads 64
//! early
#include "ptx.cuh"
#include "larger.cuh"
#include "next_token.cuh"

// of this value and all before it
__device__ float running_sum(float* sums, float value) {
  int i = threadIdx.x;
  __syncthreads();
  sums[i] = value;
  for (int n = 1; n < THREADS; n *= 2) {
    __syncthreads();
    float before = i >= n ? sums[i - n] : 0.0f;
    __syncthreads();
    sums[i] += before;
  }
  __syncthreads();
  return sums[i];
}

// `largest` (row, THREADS): value, id. `draws` (row, 8): count, top_p, log(min_p), 1 / temperature, number
extern "C" __global__ void __launch_bounds__(THREADS)
    draw(Step step, const uint2* largest, const float* draws, int vocabulary, int fixed) {
  start_after();
  wait_before();
  __shared__ float sums[THREADS];
  int t = blockIdx.x, i = threadIdx.x;
  const float* how = draws + t * 8;
  uint2 mine = largest[t * THREADS + i];
  float value = __uint_as_float(mine.x), top = __uint_as_float(largest[t * THREADS].x);
  bool there = (float)i < how[0] && mine.y < NOTHING;
  int size = max(__syncthreads_count(there), 1);
  float reached = running_sum(sums, there ? expf(value - top) : 0.0f), target = how[1] * sums[THREADS - 1];
  int likeliest = __syncthreads_count(there && reached < target) + 1;
  if (how[1] >= 1.0f) likeliest = size;
  int likely = __syncthreads_count(there && value >= top + how[2]);
  int kept = min(max(min(likeliest, likely), 1), size);
  float weights = running_sum(sums, there ? expf((value - top) * how[3]) : 0.0f), limit = how[4] * sums[kept - 1];
  int place = min(__syncthreads_count(there && weights <= limit), kept - 1);
  if (i == 0) feed(step, t, largest[t * THREADS + place].y, vocabulary, fixed);
}
