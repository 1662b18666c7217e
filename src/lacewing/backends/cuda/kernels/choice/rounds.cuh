// The largest values of what the threads of a block hold, one a round. MOST: (value bits, id) of a thread.
#pragma once
#include "larger.cuh"

template <int MOST, int COUNT>
__device__ void keep_largest(const uint2* values, uint2* kept) {
  u32 taken = 0;
  auto best_of_mine = [&](int& place) {
    uint2 best = nothing();
    place = -1;
#pragma unroll
    for (int j = 0; j < MOST; j++) {
      if (taken >> j & 1 || values[j].y == NOTHING) continue;
      uint2 won = larger(best, values[j]);
      if (won.y == values[j].y && best.y != won.y) best = won, place = j;
    }
    return best;
  };
  int place;
  uint2 mine = best_of_mine(place);
  for (int round = 0; round < COUNT; round++) {
    uint2 found = largest_of_all(mine);
    if (threadIdx.x == 0) kept[round] = found;
    if (place >= 0 && mine.y == found.y) {
      taken |= 1u << place;
      mine = best_of_mine(place);
    }
  }
}
