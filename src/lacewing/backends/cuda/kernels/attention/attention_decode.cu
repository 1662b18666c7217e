// Attention of tokens one by one on tensor cores: up to TILE query heads of a key head are the rows of a tile, so that the KV cache
// is read once for all of them, straight into registers. A warp takes 16 keys at a time and keeps a softmax of its own; those of a block are merged
// at the end. Thread (g, t) of a warp loads dimensions 8 (4 c + t) .. + 7 of key g, and dimensions 8 (8 c + g) .. + 7 of the values 2 t, 2 t + 1,
// 2 t + 8 and 2 t + 9; sums of rows then are of the dimension 8 g + j of each eight in tile j. WIDTH: of a key and of a value, at most.
// `which`, `first`, `parts`, `chosen`: as `attention.cu` has them; a token has room for `splits`; `attention_join` reads the
// ones in use. `forms`: in a run without prompts, of heads that are whole groups of 32, where the result goes for products, too: it is a mean of
// values that are float16, or were made of some, so that none overflows. Grid: key heads times tiles of their query heads, splits, tokens.
//! arch 80
//! KV f16 q8_0
//! WIDTH 64 128 256
//! TILE 8 16
//! threads 128
//! early
#include "forms.cuh"
#include "eight.cuh"
#include "seen.cuh"

#define WARPS (THREADS / WARP)
#define KEYS 16
#define KEY_CHUNKS (WIDTH / 32)
#define VALUE_CHUNKS (WIDTH / 64)
#define HALVES (TILE / 8)
#define LOADED 2  // pieces of values that are on their way

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_decode(Step step, View q, View out, u32* const* store, Pages pages, View chosen, const float* sinks, float* parts, Query a,
                     int which, int first, int splits, Forms forms) {
  constexpr Precision P = KV;
  __shared__ float merged[WARPS][8][WIDTH], largest[WARPS][8], totals[WARPS][8];
  start_after();
  const int split = blockIdx.y, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane >> 2, t4 = lane & 3, i = first + blockIdx.z;
  const int token = which == 0 ? step.decode_token(i) : which == 1 ? long_token(step, i) : i;
  const int row = step.row(token), position = step.position(token), low = first_seen(position, a.window, a.span);
  const bool listed = chosen.at && position >= a.most;
  const int seen = listed ? a.most : position + 1 - low, length = parts ? split_length(seen) : seen;
  const int begin = split * length, end = min(seen, begin + length);
  const int together = a.heads / a.key_heads, tiles = (together + TILE - 1) / TILE, key_head = blockIdx.x / tiles;
  const int first_head = key_head * together + blockIdx.x % tiles * TILE, heads = min(TILE, (key_head + 1) * together - first_head);
  const Rows& values = pages.values;
  const bool alone = step.decode_count() == step.count();
  u32* base = *store;
  if (!listed && begin + (int)threadIdx.x < end) {  // the first keys and their values are on their way while the query is made
    const u32* key = row_at(step, base, pages, pages.keys, row, key_head, low + begin + threadIdx.x);
    const u32* value = row_at(step, base, pages, values, row, key_head, low + begin + threadIdx.x);
    for (int w = 0; w < pages.keys.words; w += LINE_WORDS) bring_line(key + w);
    for (int w = 0; w < values.words; w += LINE_WORDS) bring_line(value + w);
  }
  wait_before();
  if (begin >= seen) return;

  u32 query[2][KEY_CHUNKS][4] = {};  // of rows g and g + 8
#pragma unroll
  for (int h = 0; h < HALVES; h++) {
    const float* from = q.row(token) + (first_head + g + 8 * h) * a.width;
#pragma unroll
    for (int c = 0; c < KEY_CHUNKS; c++) {
#pragma unroll
      for (int w = 0; w < 4; w++) {
        const int d = 8 * (4 * c + t4) + 2 * w;
        const bool on = g + 8 * h < heads;
        query[h][c][w] = halves_of(on && d < a.width ? from[d] : 0.0f, on && d + 1 < a.width ? from[d + 1] : 0.0f);
      }
    }
  }
  float sums[VALUE_CHUNKS][8][4] = {}, top[2] = {NONE, NONE}, total[2] = {};
  const int key_chunks = pages.keys.value_words * in_word<P>() / 8, value_chunks = (a.value_width + 7) / 8;
  for (int start = begin + warp * KEYS; start < end; start += WARPS * KEYS) {
    auto place = [&](int s) { return listed ? chosen.ids(token)[s] : low + s; };
    uint4 k[2][KEY_CHUNKS];
#pragma unroll
    for (int n = 0; n < 2; n++) {
      const u32* key = row_at(step, base, pages, pages.keys, row, key_head, place(min(start + 8 * n + g, end - 1)));
#pragma unroll
      for (int c = 0; c < KEY_CHUNKS; c++) {
        k[n][c] = 4 * c + t4 < key_chunks ? load_eight<P>(key, pages.keys, 4 * c + t4) : make_uint4(0, 0, 0, 0);
      }
    }
    const u32* value[4];
#pragma unroll
    for (int n = 0; n < 4; n++) value[n] = row_at(step, base, pages, values, row, key_head, place(min(start + 2 * t4 + (n & 1) + (n >> 1) * 8, end - 1)));
    auto load_values = [&](uint4(&v)[4], int c) {
#pragma unroll
      for (int n = 0; n < 4; n++) v[n] = 8 * c + g < value_chunks ? load_eight<P>(value[n], values, 8 * c + g) : make_uint4(0, 0, 0, 0);
    };
    uint4 v[LOADED][4];
#pragma unroll
    for (int c = 0; c < LOADED && c < VALUE_CHUNKS; c++) load_values(v[c], c);
    float scores[2][4] = {};
#pragma unroll
    for (int n = 0; n < 2; n++) {
#pragma unroll
      for (int c = 0; c < KEY_CHUNKS; c++) {
        mma(scores[n], query[0][c][0], query[1][c][0], query[0][c][1], query[1][c][1], k[n][c].x, k[n][c].y);
        mma(scores[n], query[0][c][2], query[1][c][2], query[0][c][3], query[1][c][3], k[n][c].z, k[n][c].w);
      }
    }
    float fade[2] = {}, weights[2][4] = {};
#pragma unroll
    for (int h = 0; h < HALVES; h++) {
      float higher = top[h];
#pragma unroll
      for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
          float& s = scores[n][2 * h + c];
          s *= a.scale;
          if (a.softcap > 0.0f) s = capped(s, a.softcap);
          if (start + 8 * n + 2 * t4 + c < end) higher = fmaxf(higher, s);
        }
      }
      higher = fmaxf(higher, __shfl_xor_sync(ALL, higher, 1));
      higher = fmaxf(higher, __shfl_xor_sync(ALL, higher, 2));
      fade[h] = __expf(top[h] - higher);
      total[h] *= fade[h];
#pragma unroll
      for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
          const float w = start + 8 * n + 2 * t4 + c < end ? __expf(scores[n][2 * h + c] - higher) : 0.0f;
          weights[n][2 * h + c] = w;
          total[h] += w;
        }
      }
      top[h] = higher;
    }
    const u32 p0 = halves_of(weights[0][0], weights[0][1]), p1 = halves_of(weights[0][2], weights[0][3]);
    const u32 p2 = halves_of(weights[1][0], weights[1][1]), p3 = halves_of(weights[1][2], weights[1][3]);
#pragma unroll
    for (int c = 0; c < VALUE_CHUNKS; c++) {
      const uint4(&w)[4] = v[c % LOADED];
#pragma unroll
      for (int j = 0; j < 8; j++) {
        const int selector = j & 1 ? 0x7632 : 0x5410;
        auto word = [&](int n) { return j < 2 ? w[n].x : j < 4 ? w[n].y : j < 6 ? w[n].z : w[n].w; };
        float(&s)[4] = sums[c][j];
        s[0] *= fade[0], s[1] *= fade[0], s[2] *= fade[1], s[3] *= fade[1];
        mma(s, p0, p1, p2, p3, __byte_perm(word(0), word(1), selector), __byte_perm(word(2), word(3), selector));
      }
      if (c + LOADED < VALUE_CHUNKS) load_values(v[c % LOADED], c + LOADED);
    }
  }
#pragma unroll
  for (int h = 0; h < HALVES; h++) {
    total[h] += __shfl_xor_sync(ALL, total[h], 1);
    total[h] += __shfl_xor_sync(ALL, total[h], 2);
    __syncthreads();
    if (t4 == 0) largest[warp][g] = top[h], totals[warp][g] = total[h];
#pragma unroll
    for (int c = 0; c < VALUE_CHUNKS; c++) {
#pragma unroll
      for (int j = 0; j < 8; j++) {
        merged[warp][g][8 * (8 * c + 2 * t4) + j] = sums[c][j][2 * h];
        merged[warp][g][8 * (8 * c + 2 * t4 + 1) + j] = sums[c][j][2 * h + 1];
      }
    }
    __syncthreads();
    for (int at = threadIdx.x; at < min(8, heads - 8 * h) * a.value_width; at += THREADS) {
      const int r = at / a.value_width, c = at % a.value_width, head = first_head + 8 * h + r;
      float highest = largest[0][r], all = 0.0f, y = 0.0f;
#pragma unroll
      for (int w = 1; w < WARPS; w++) highest = fmaxf(highest, largest[w][r]);
#pragma unroll
      for (int w = 0; w < WARPS; w++) {
        const float share = __expf(largest[w][r] - highest);
        all += totals[w][r] * share;
        y += merged[w][r][c] * share;
      }
      if (parts) {
        float* left = parts + (((size_t)blockIdx.z * a.heads + head) * splits + split) * (a.value_width + 2);
        left[c] = y;
        if (c == 0) left[a.value_width] = highest, left[a.value_width + 1] = all;
        continue;
      }
      if (sinks) {
        const float raised = fmaxf(highest, sinks[head]), shrink = __expf(highest - raised);
        y *= shrink;
        all = all * shrink + __expf(sinks[head] - raised);
      }
      y /= all;
      out.row(token)[head * a.value_width + c] = y;
      if (alone) store_form_group(forms, step.count(), token, a.heads * a.value_width, head * a.value_width + c, y);
    }
  }
}
