// Scores of an index: a warp a position of one token, over the heads of the query. Grid: positions / warps, tokens of the pass.
//! KV f16 f32 q8_0
//! early
#include "ptx.cuh"
#include "pages.cuh"

// `scores` (tokens of the pass, row_words)
extern "C" __global__ void __launch_bounds__(THREADS)
    index_scores(Step step, View q, View weights, u32* const* store, Pages pages, float* scores, int row_words, int heads, int width, int most,
                 int first) {
  start_after();
  wait_before();
  constexpr int IN = in_word<KV>();
  int lane = threadIdx.x % WARP, position = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, t = first + blockIdx.y;
  int seen = step.position(t) + 1;
  if (seen <= most || position >= seen) return;
  const u32* key = row_at(step, *store, pages, pages.index, step.row(t), 0, position);
  float total = 0.0f, values[IN];
  for (int h = 0; h < heads; h++) {
    const float* query = q.row(t) + h * width;
    float sum = 0.0f;
    for (int w = lane; w * IN < width; w += WARP) {
      word_values<KV>(key, pages.index, w, values);
#pragma unroll
      for (int j = 0; j < IN; j++) sum += w * IN + j < width ? values[j] * query[w * IN + j] : 0.0f;
    }
    sum = warp_sum(sum);
    total += weights.row(t)[h] * (sum > 0.0f || sum != sum ? sum : 0.0f);
  }
  if (lane == 0) scores[(size_t)blockIdx.y * row_words + position] = total;
}
