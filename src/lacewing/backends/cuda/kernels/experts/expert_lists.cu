// Sorts the (token, active expert) pairs of a run by expert, for kernels that take some of one expert at a time. One block. The list: the
// number of tiles; the expert, first pair and number of pairs of each of `most` tiles; then the pairs t * active + a. Ids beyond the experts are left out.
//! arch 80
//! threads 1024
#include "step.cuh"

// shared memory: a word an expert
extern "C" __global__ void __launch_bounds__(THREADS) expert_lists(Step step, View ids, int* list, int experts, int active, int tile, int most) {
  extern __shared__ int counts[];
  __shared__ int2 before[THREADS];
  int pairs = step.count() * active, each = (experts + THREADS - 1) / THREADS;
  for (int e = threadIdx.x; e < experts; e += THREADS) counts[e] = 0;
  __syncthreads();
  for (int pair = threadIdx.x; pair < pairs; pair += THREADS) {
    int e = ids.ids(pair / active)[pair % active];
    if ((u32)e < (u32)experts) atomicAdd(counts + e, 1);
  }
  __syncthreads();
  int2 mine = make_int2(0, 0);  // pairs and tiles of a thread's experts
  int first = threadIdx.x * each, end = min(first + each, experts);
  for (int e = first; e < end; e++) mine.x += counts[e], mine.y += (counts[e] + tile - 1) / tile;
  before[threadIdx.x] = mine;
  __syncthreads();
  for (int n = 1; n < THREADS; n <<= 1) {
    int2 lower = threadIdx.x >= n ? before[threadIdx.x - n] : make_int2(0, 0);
    __syncthreads();
    before[threadIdx.x].x += lower.x, before[threadIdx.x].y += lower.y;
    __syncthreads();
  }
  int pair = before[threadIdx.x].x - mine.x, to = before[threadIdx.x].y - mine.y;
  for (int e = first; e < end; e++) {
    int count = counts[e];
    for (int done = 0; done < count; done += tile, to++) {
      list[1 + 3 * to] = e;
      list[2 + 3 * to] = pair + done;
      list[3 + 3 * to] = min(tile, count - done);
    }
    counts[e] = pair;  // from now on, where the expert's next pair goes
    pair += count;
  }
  if (threadIdx.x == THREADS - 1) list[0] = before[threadIdx.x].y;
  __syncthreads();
  for (int i = threadIdx.x; i < pairs; i += THREADS) {
    int e = ids.ids(i / active)[i % active];
    if ((u32)e < (u32)experts) list[1 + 3 * most + atomicAdd(counts + e, 1)] = i;
  }
}
