// out[t] = scale * weight[tokens[t]]; a thread a group of 32. Ids below zero are left: the host brings their rows. Grid: groups / 64, tokens.
//! QUANT quants
//! threads 64
//! early
#include "ptx.cuh"
#include "values.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    embed(Step step, Planes planes, View out, int groups, int columns, float scale) {
  start_after();
  wait_before();
  int group = blockIdx.x * THREADS + threadIdx.x, id = step.token(blockIdx.y);
  if (group >= groups || id < 0) return;
  float v[32];
  load_values(planes, (size_t)id * groups + group, v);
  float* to = out.row(blockIdx.y) + group * 32;
  int count = min(32, columns - group * 32);
  for (int i = 0; i < count; i++) to[i] = v[i] * scale;
}
