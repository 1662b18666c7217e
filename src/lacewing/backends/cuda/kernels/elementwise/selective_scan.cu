// Mamba-2's scan: a block keeps COLUMNS columns of a head's state in registers and walks the tokens of a row; SLICES threads a column
// have every SLICES-th of its EACH * SLICES values each. Grid: blocks of columns, heads, rows of the run.
//! EACH 4 8 16 32 64
//! threads 256
//! early
#include "ptx.cuh"
#include "functions.cuh"

#define SLICES 4
#define COLUMNS (THREADS / SLICES)

struct Scan {
  int width, states, heads, groups, log_decay, group;
  float low, high;
};

extern "C" __global__ void __launch_bounds__(THREADS)
    selective_scan(Step step, View x, View b, View c, View dt, View out, float* const* store, const float* decay, const float* skip,
                   const float* bias, Scan d) {
  start_after();
  wait_before();
  __shared__ float partial[2][THREADS];
  int head = blockIdx.y, column = threadIdx.x % COLUMNS, slice = threadIdx.x / COLUMNS, p = blockIdx.x * COLUMNS + column;
  bool there = p < d.width;
  int place = min(p, d.width - 1), part = blockIdx.z, first = step.part_first(part), tokens = step.part_tokens(part);
  int row = step.row(first), before = step.unit_in(d.group, row), of_group = head / (d.heads / d.groups) * d.states;
  size_t size = (size_t)d.heads * d.states * d.width, of_head = (size_t)head * d.states * d.width + place;
  float a = d.log_decay ? -expf(decay[head]) : decay[head], s[EACH];
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    int n = slice + j * SLICES;
    s[j] = before >= 0 && n < d.states ? (*store)[before * size + of_head + (size_t)n * d.width] : 0.0f;
  }
  for (int t = first; t < first + tokens; t++) {
    float value = x.row(t)[head * d.width + place], time = f_softplus(dt.row(t)[head] + bias[head]);
    time = time < d.low ? d.low : time > d.high ? d.high : time;
    float kept = expf(time * a), taken = time * value, sum = 0.0f;
    const float *bs = b.row(t) + of_group, *cs = c.row(t) + of_group;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
      int n = slice + j * SLICES;
      if (n < d.states) {
        s[j] = kept * s[j] + bs[n] * taken;
        sum += cs[n] * s[j];
      }
    }
    float* mine = partial[t & 1];
    mine[threadIdx.x] = sum;
    __syncthreads();
    if (slice == 0 && there) {
      for (int other = 1; other < SLICES; other++) sum += mine[other * COLUMNS + column];
      out.row(t)[head * d.width + p] = sum + skip[head] * value;
    }
  }
  float* after = *store + step.unit_out(d.group, row) * size + of_head;
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    int n = slice + j * SLICES;
    if (there && n < d.states) after[(size_t)n * d.width] = s[j];
  }
}
