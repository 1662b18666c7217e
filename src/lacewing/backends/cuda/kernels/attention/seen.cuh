// Which keys a token sees, and how they are divided into splits: by the token's own number of keys only, so that its result is the
// same in any company.
#pragma once
#include "pages.cuh"

#define ALONE 256        // so many keys are one split
#define SPLIT_LEAST 128  // keys of a split
#define SPLIT_MOST 64    // splits of a token

__device__ __forceinline__ int first_seen(int position, int window, int span) {
  int first = window > 0 ? max(0, position - window + 1) : 0;
  return span > 0 ? max(first, position / span * span) : first;
}

__device__ __forceinline__ int split_length(int seen) {
  if (seen <= ALONE) return ALONE;
  return max(SPLIT_LEAST, (int)((1u << (32 - __clz(seen - 1))) / SPLIT_MOST));
}

// number i of the tokens of rows with many of them, which are the first parts of the run
__device__ __forceinline__ int long_token(const Step& step, int i) {
  for (int part = 0; part < step.long_parts(); part++) {
    int tokens = step.part_tokens(part);
    if (i < tokens) return step.part_first(part) + i;
    i -= tokens;
  }
  return 0;
}
