// Attention of one query head of a token, over all keys that it sees or one split of them. The warps of a block take keys by turns and
// keep a softmax each, which are merged at the end. VALUES: values of a lane. Grid: heads, splits, tokens.
//! KV f16 f32 q8_0
//! VALUES 4 8 16 32
//! threads 128
//! early
#include "ptx.cuh"
#include "seen.cuh"

#define WARPS (THREADS / WARP)

struct Query {
  int heads, key_heads, width, value_width, window, span, most;
  float scale, softcap;
};

// `which`: 0 tokens one by one from number `first` on, 1 those of rows with many, 2 all tokens. `parts`: where splits leave sums,
// (token, head, split, value_width + 2), or null: one split. `chosen`: positions that an index chose, `most` of them, or null.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention(Step step, View q, View out, u32* const* store, Pages pages, View chosen, const float* sinks, float* parts, Query a, int which,
              int first) {
  start_after();
  wait_before();
  constexpr Precision P = KV;
  constexpr int IN = in_word<P>(), WORDS = VALUES / IN;
  __shared__ float merged[WARPS][VALUES * WARP], largest[WARPS], sums[WARPS];
  extern __shared__ float query[];  // the width of a key in whole words
  int head = blockIdx.x, split = blockIdx.y, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, i = first + blockIdx.z;
  int t = which == 0 ? step.decode_token(i) : which == 1 ? long_token(step, i) : i;
  int row = step.row(t), position = step.position(t), low = first_seen(position, a.window, a.span);
  bool listed = chosen.at && position >= a.most;
  int seen = listed ? a.most : position + 1 - low, length = parts ? split_length(seen) : seen;
  int begin = split * length, end = min(seen, begin + length);
  float* left = parts + (((size_t)blockIdx.z * a.heads + head) * gridDim.y + split) * (a.value_width + 2);
  if (begin >= seen) {
    if (threadIdx.x == 0) left[a.value_width] = NONE, left[a.value_width + 1] = 0.0f;
    return;
  }
  const Rows& values = pages.values;
  int key_head = head / (a.heads / a.key_heads), key_words = pages.keys.value_words, value_words = (a.value_width + IN - 1) / IN;
  for (int c = threadIdx.x; c < key_words * IN; c += THREADS) query[c] = c < a.width ? q.row(t)[head * a.width + c] * a.scale : 0.0f;
  __syncthreads();
  u32* base = *store;
  float top = NONE, sum = 0.0f, total[WORDS * IN] = {};
  for (int s = begin + warp; s < end; s += WARPS) {
    int at = listed ? chosen.ids(t)[s] : low + s;
    const u32* key = row_at(step, base, pages, pages.keys, row, key_head, at);
    float score = 0.0f, four[IN];
    for (int w = lane; w < key_words; w += WARP) {
      word_values<P>(key, pages.keys, w, four);
#pragma unroll
      for (int j = 0; j < IN; j++) score += four[j] * query[w * IN + j];
    }
    score = warp_sum(score);
    if (a.softcap > 0.0f) score = a.softcap * tanhf(score / a.softcap);
    float higher = score > top || score != score ? score : top, fade = expf(top - higher), weight = expf(score - higher);
    top = higher;
    sum = sum * fade + weight;
    const u32* value = row_at(step, base, pages, values, row, key_head, at);
#pragma unroll
    for (int n = 0; n < WORDS; n++) {
      int w = lane + n * WARP;
      if (w < value_words) {
        word_values<P>(value, values, w, four);
#pragma unroll
        for (int j = 0; j < IN; j++) total[n * IN + j] = total[n * IN + j] * fade + weight * four[j];
      }
    }
  }
#pragma unroll
  for (int n = 0; n < WORDS; n++)
#pragma unroll
    for (int j = 0; j < IN; j++) merged[warp][(lane + n * WARP) * IN + j] = total[n * IN + j];
  if (lane == 0) largest[warp] = top, sums[warp] = sum;
  __syncthreads();
  float highest = largest[0];
  for (int w = 1; w < WARPS; w++) highest = largest[w] > highest || largest[w] != largest[w] ? largest[w] : highest;
  float all = 0.0f;
  for (int w = 0; w < WARPS; w++) all += sums[w] * expf(largest[w] - highest);
  float fade = 1.0f;
  if (!parts && sinks) {
    float raised = fmaxf(highest, sinks[head]);
    fade = expf(highest - raised);
    all = all * fade + expf(sinks[head] - raised);
  }
  for (int c = threadIdx.x; c < a.value_width; c += THREADS) {
    float y = 0.0f;
    for (int w = 0; w < WARPS; w++) y += merged[w][c] * expf(largest[w] - highest);
    if (parts) left[c] = y;
    else out.row(t)[head * a.value_width + c] = y * fade / all;
  }
  if (parts && threadIdx.x == 0) left[a.value_width] = highest, left[a.value_width + 1] = all;
}
