// The splits of a token's head, put together. Grid: heads, tokens.
//! threads 128
//! early
#include "ptx.cuh"
#include "seen.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_merge(Step step, View out, const float* sinks, const float* parts, int heads, int width, int splits, int which, int first) {
  start_after();
  wait_before();
  int head = blockIdx.x, i = first + blockIdx.y, t = which == 0 ? step.decode_token(i) : i;
  const float* from = parts + ((size_t)blockIdx.y * heads + head) * splits * (width + 2);
  float highest = NONE, all = 0.0f;
  for (int s = 0; s < splits; s++) {
    float top = from[s * (width + 2) + width];
    highest = top > highest || top != top ? top : highest;
  }
  if (sinks) highest = fmaxf(highest, sinks[head]);
  for (int s = 0; s < splits; s++) {
    const float* part = from + s * (width + 2) + width;
    if (part[1] != 0.0f) all += part[1] * expf(part[0] - highest);
  }
  if (sinks) all += expf(sinks[head] - highest);
  for (int c = threadIdx.x; c < width; c += THREADS) {
    float y = 0.0f;
    for (int s = 0; s < splits; s++) {
      const float* part = from + s * (width + 2);
      if (part[width + 1] != 0.0f) y += part[c] * expf(part[width] - highest);
    }
    out.row(t)[head * width + c] = y / all;
  }
}
