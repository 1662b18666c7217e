// An id that was chosen becomes the next token of its row, one position on; the row's units change their roles.
#pragma once
#include "step.cuh"

__device__ __forceinline__ void feed(const Step& step, int t, u32 id, int vocabulary, int fixed) {
  step.words[step.chosen + t] = id;
  step.words[step.tokens + t] = min(id, (u32)vocabulary - 1);
  step.words[step.positions + t] += 1;
  int row = step.row(t);
  for (int g = 0; g < fixed; g++) {
    int *in = step.words + step.units_in + g * step.rows + row, *out = step.words + step.units_out + g * step.rows + row, before = *in;
    *in = *out;
    *out = before;
  }
}
