// What the splits of `attention_decode` left of a token's head, put together; threads have a column each, the first 64 a split each before.
// `forms`: as in `attention_decode`. Grid: heads, tokens.
//! arch 80
//! threads 128
//! early
#include "forms.cuh"
#include "seen.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_join(Step step, View out, const float* sinks, const float* parts, int heads, int width, int splits, int which, int first,
                   int window, int span, int most, int chosen, Forms forms) {
  __shared__ float share[SPLIT_MOST], whole;
  start_after();
  int head = blockIdx.x, i = first + blockIdx.y, t = which == 0 ? step.decode_token(i) : i, position = step.position(t);
  int seen = chosen && position >= most ? most : position + 1 - first_seen(position, window, span), length = split_length(seen);
  int count = (seen + length - 1) / length;
  wait_before();
  const float* from = parts + ((size_t)blockIdx.y * heads + head) * splits * (width + 2);
  if (threadIdx.x < WARP) {
    float highest = sinks ? sinks[head] : NONE, all = 0.0f;
    for (int s = threadIdx.x; s < count; s += WARP) highest = fmaxf(highest, from[s * (width + 2) + width]);
    highest = warp_max(highest);
    for (int s = threadIdx.x; s < count; s += WARP) {
      const float* part = from + s * (width + 2) + width;
      share[s] = expf(part[0] - highest);
      all += part[1] * share[s];
    }
    all = warp_sum(all) + (sinks ? expf(sinks[head] - highest) : 0.0f);
    if (threadIdx.x == 0) whole = all;
  }
  __syncthreads();
  for (int c = threadIdx.x; c < width; c += THREADS) {
    float y = 0.0f;
#pragma unroll 16
    for (int s = 0; s < count; s++) y += from[s * (width + 2) + c] * share[s];
    y /= whole;
    out.row(t)[head * width + c] = y;
    if (step.decode_count() == step.count()) store_form_group(forms, step.count(), t, heads * width, head * width + c, y);
  }
}
