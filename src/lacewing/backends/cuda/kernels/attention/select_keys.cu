// The positions with the largest scores of a token, ascending: their threshold by counting bits from the highest on, then each thread
// writes those of its own run of positions. A block a token. Grid: tokens of the pass.
//! threads 256
//! early
#include "ptx.cuh"

// in the order of the numbers; -0 is 0, and NaN the largest
__device__ u32 sort_key(u32 bits) {
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0xFFFFFFFFu;
  if (bits == 0x80000000u) return bits;
  return bits ^ (bits >> 31 ? 0xFFFFFFFFu : 0x80000000u);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    select_keys(Step step, const u32* scores, View chosen, int row_words, int most, int first) {
  start_after();
  wait_before();
  __shared__ u32 counts[256], above[THREADS], equal[THREADS], bin, wanted;
  int index = threadIdx.x, t = first + blockIdx.x, seen = step.position(t) + 1;
  if (seen <= most) return;
  const u32* row = scores + (size_t)blockIdx.x * row_words;
  u32 threshold = 0;
  if (index == 0) wanted = most;
  for (int shift = 24; shift >= 0; shift -= 8) {
    counts[index] = 0;
    __syncthreads();
    for (int s = index; s < seen; s += THREADS) {
      u32 key = sort_key(row[s]);
      if (shift == 24 || key >> (shift + 8) == threshold) atomicAdd(&counts[(key >> shift) & 255u], 1u);
    }
    __syncthreads();
    if (index == 0) {
      u32 left = wanted, b = 255;
      for (; b > 0 && left > counts[b]; b--) left -= counts[b];
      bin = b;
      wanted = left;
    }
    __syncthreads();
    threshold = threshold << 8 | bin;
  }
  int length = (seen + THREADS - 1) / THREADS, start = min(index * length, seen), end = min(start + length, seen);
  u32 more = 0, same = 0;
  for (int s = start; s < end; s++) {
    u32 key = sort_key(row[s]);
    more += key > threshold;
    same += key == threshold;
  }
  above[index] = more;
  equal[index] = same;
  __syncthreads();
  u32 before_more = 0, before_same = 0;
  for (int i = 0; i < index; i++) before_more += above[i], before_same += equal[i];
  u32 taken = min(wanted, before_same), left = wanted - taken;
  int* to = chosen.ids(t) + before_more + taken;
  for (int s = start; s < end; s++) {
    u32 key = sort_key(row[s]);
    if (key > threshold || (key == threshold && left > 0)) {
      left -= key == threshold;
      *to++ = s;
    }
  }
}
