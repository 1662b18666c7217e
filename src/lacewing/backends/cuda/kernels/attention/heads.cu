// Norm and RoPE of the heads of q and k, and the write of k and v to the KV cache: a warp a head of one of
// them. Grid: heads of all three / warps, tokens.
//! KV f16 f32 q8_0
//! threads 128
//! early
#include "ptx.cuh"
#include "pages.cuh"
#include "turn.cuh"

#define WIDEST 1024  // values of a head

// `normed`: 1 before the rotation, 2 behind it. `store`: 1 keys, 2 values.
struct Chain {
  View at;
  int heads, width, normed, pairs, start, adjacent, store, spare;
  float eps, offset, magnitude, spare_float;
};

__device__ void norm(float* values, const Chain& c, const float* weight, int lane) {
  float sum = 0.0f;
  for (int i = lane; i < c.width; i += WARP) sum += values[i] * values[i];
  float size = 1.0f / sqrtf(warp_sum(sum) / c.width + c.eps);
  for (int i = lane; i < c.width; i += WARP) values[i] = values[i] * size * (weight ? weight[i] + c.offset : 1.0f);
  __syncwarp();
}

__device__ void rotate(float* values, const Chain& c, const uint2* turns, u32 position, int lane) {
  for (int i = lane; i < c.pairs; i += WARP) {
    float *first = values + c.start + (c.adjacent ? 2 * i : i), *second = first + (c.adjacent ? 1 : c.pairs);
    float2 turn = turned(position, turns[i]);
    float cosine = turn.x * c.magnitude, sine = turn.y * c.magnitude, a = *first, b = *second;
    *first = a * cosine - b * sine;
    *second = a * sine + b * cosine;
  }
  __syncwarp();
}

// zeros stand behind the last value of a row
__device__ void keep(u32* to, const Rows& rows, const float* values, int lane) {
  auto value = [&](int i) { return i < rows.width ? values[i] : 0.0f; };
  if (KV == f32) {
    for (int w = lane; w < rows.value_words; w += WARP) to[w] = __float_as_uint(value(w));
  } else if (KV == f16) {
    for (int w = lane; w < rows.value_words; w += WARP) to[w] = half_bits(value(2 * w)) | half_bits(value(2 * w + 1)) << 16;
  } else {
    int blocks = rows.width / 32;
    unsigned short* scales = (unsigned short*)(to + rows.value_words);
    for (int block = 0; block < blocks; block++) {
      u32 word = q8_word(values[block * 32 + lane], scales + block);
      if (lane % 4 == 0) to[block * 8 + lane / 4] = word;
    }
    if (lane == 0 && blocks & 1) scales[blocks] = 0;
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    heads(Step step, Chain q, Chain k, Chain v, const float* q_weight, const float* k_weight, const float* v_weight, const uint2* q_turns,
          const uint2* k_turns, u32* const* store, Pages pages) {
  start_after();
  wait_before();
  __shared__ float room[THREADS / WARP][WIDEST];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, head = blockIdx.x * (THREADS / WARP) + warp, t = blockIdx.y;
  if (head >= q.heads + k.heads + v.heads) return;
  float* values = room[warp];
  Chain c = q;
  const float* weight = q_weight;
  const uint2* turns = q_turns;
  if (head >= q.heads) {
    head -= q.heads;
    c = k, weight = k_weight, turns = k_turns;
    if (head >= k.heads) head -= k.heads, c = v, weight = v_weight, turns = nullptr;
  }
  float* from = c.at.row(t) + head * c.width;
  u32 position = step.position(t);
  for (int i = lane; i < c.width; i += WARP) values[i] = from[i];
  __syncwarp();
  if (c.normed == 1) norm(values, c, weight, lane);
  if (c.pairs) rotate(values, c, turns, position, lane);
  if (c.normed == 2) norm(values, c, weight, lane);
  if (c.normed || c.pairs) {
    for (int i = lane; i < c.width; i += WARP) from[i] = values[i];
  }
  if (c.store) {
    const Rows& rows = c.store == 1 ? pages.keys : pages.values;
    keep(row_at(step, *store, pages, rows, step.row(t), head, position), rows, values, lane);
  }
}
