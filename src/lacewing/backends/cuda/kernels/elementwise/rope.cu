// Turns pairs of each head by position * frequency, in place; one thread a pair. Grid: heads * pairs / THREADS, tokens.
//! threads 128
//! early
#include "ptx.cuh"
#include "turn.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    rope(Step step, View x, const uint2* frequencies, int pairs, int width, int start, int heads, int adjacent, float magnitude) {
  start_after();
  wait_before();
  int index = blockIdx.x * THREADS + threadIdx.x;
  if (index >= heads * pairs) return;
  int pair = index % pairs;
  float* head = x.row(blockIdx.y) + index / pairs * width + start;
  float *first = adjacent ? head + 2 * pair : head + pair, *second = adjacent ? first + 1 : first + pairs;
  float2 turn = turned(step.position(blockIdx.y), frequencies[pair]);
  float cosine = turn.x * magnitude, sine = turn.y * magnitude, a = *first, b = *second;
  *first = a * cosine - b * sine;
  *second = a * sine + b * cosine;
}
