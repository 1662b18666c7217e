// Chooses the experts of a token: the `active` best of `experts`, best first. A block a token. Scores are compared as integers in the
// order of the floats; the place of an expert is the number of those before it. Grid: 1, tokens.
// Shared memory: keys and shares of the experts, then of the active ones best shares and ids, then keys of the runs.
//! GATING softmax sigmoid sparsemixer
#include "step.cuh"
#include "functions.cuh"

enum Gating { softmax, sparsemixer, by_sigmoid };
#define NOT_A_NUMBER 0xFFFFFFFFu
#define GATE_sigmoid by_sigmoid
#define GATE_softmax softmax
#define GATE_sparsemixer sparsemixer
#define GATE_(g) GATE_##g
#define GATE(g) GATE_(g)

// in the order of the floats, the zeros alike; what is not finite above all
__device__ u32 key_of(float value) {
  u32 bits = __float_as_uint(value), size = bits & 0x7FFFFFFFu;
  if (size >= 0x7F800000u) return NOT_A_NUMBER;
  if (size == 0) return 0x80000000u;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ float float_of_key(u32 key) { return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key); }

struct Choice {
  int experts, active, groups, groups_used, group_best, renormalise;
  float scale, jitter;
};

// `kept` points to where decisions are kept for people who watch, or to null: (token, stride) from word `first` on ids, then shares
extern "C" __global__ void __launch_bounds__(THREADS)
    route(View logits, View ids, View weights, const float* bias, const float* scales, u32* const* kept, int stride, int first, Choice c) {
  extern __shared__ u32 keys[];
  float *shares = (float*)(keys + c.experts), *best = shares + c.experts;
  int* chosen = (int*)(best + c.active);
  u32* runs = (u32*)(chosen + c.active);
  __shared__ int failed;
  __shared__ float tops[WARP];
  int t = blockIdx.y, lane = threadIdx.x;
  const float* from = logits.row(t);
  constexpr Gating gating = GATE(GATING);
  if (lane == 0) failed = 0;
  __syncthreads();
  float top = NONE;
  for (int e = lane; e < c.experts; e += THREADS) {
    u32 key = key_of(from[e]);
    keys[e] = key;
    if (key == NOT_A_NUMBER) failed = 1;
    else top = fmaxf(top, from[e]);
  }
  top = warp_max(top);
  if (lane % WARP == 0) tops[lane / WARP] = top;
  __syncthreads();
  top = warp_max(tops[lane % WARP % (THREADS / WARP)]);
  if (gating == by_sigmoid) {
    for (int e = lane; e < c.experts; e += THREADS) shares[e] = f_sigmoid(from[e]);
  } else {
    float sum = 0.0f;
    for (int e = lane; e < c.experts; e += THREADS) sum += shares[e] = expf(from[e] - top);
    sum = block_sum(sum);
    for (int e = lane; e < c.experts; e += THREADS) shares[e] /= sum;
  }
  __syncthreads();
  auto score = [&](int e) { return bias ? shares[e] + bias[e] : shares[e]; };
  if (bias) {
    for (int e = lane; e < c.experts; e += THREADS) {
      keys[e] = key_of(score(e));
      if (keys[e] == NOT_A_NUMBER) failed = 1;
    }
    __syncthreads();
  }
  bool broken = failed;
  if (c.groups > 1) {
    int size = c.experts / c.groups;
    for (int g = lane; g < c.groups; g += THREADS) {
      float largest = NONE, second = NONE;
      for (int e = g * size; e < (g + 1) * size; e++) {
        float s = score(e);
        second = fmaxf(second, fminf(largest, s));
        largest = fmaxf(largest, s);
      }
      runs[g] = key_of(c.group_best == 2 && size > 1 ? largest + second : largest);
    }
    __syncthreads();
    for (int e = lane; e < c.experts; e += THREADS) {
      int g = e / size, before = 0;
      for (int other = 0; other < c.groups; other++) before += runs[other] > runs[g] || (runs[other] == runs[g] && other < g);
      if (before >= c.groups_used) keys[e] = 0;  // below every float
    }
    __syncthreads();
  }
  u32* watched = *kept ? *kept + (size_t)t * stride + first : nullptr;
  for (int e = lane; e < c.experts; e += THREADS) {
    u32 mine = keys[e];
    int place = 0;
    for (int other = 0; other < c.experts; other++) place += keys[other] > mine || (keys[other] == mine && other < e);
    if (broken) place = e;
    if (place < c.active) {
      ids.ids(t)[place] = e;
      best[place] = shares[e];
      chosen[place] = e;
      if (watched) watched[place] = e;
    }
    if (watched) watched[c.active + e] = __float_as_uint(shares[e]);
  }
  __syncthreads();
  if (gating == sparsemixer) {
    for (int a = lane; a < c.active; a += THREADS) {
      float m = from[chosen[a]], near = 0.0f;
      for (int e = 0; e < c.experts; e++) {
        bool left = m - from[e] <= 2.0f * c.jitter * fmaxf(fabsf(from[e]), m);
        for (int other = 0; other < a; other++) left = left && chosen[other] != e;
        if (left) near += expf(from[e] - m);
      }
      best[a] = 1.0f / near;
    }
    __syncthreads();
  }
  for (int a = lane; a < c.active; a += THREADS) {
    float w = best[a];
    if (c.renormalise) {
      float all = 0.0f;
      for (int other = 0; other < c.active; other++) all += best[other];
      w /= all + 1e-20f;
    }
    w *= c.scale;
    if (scales) w *= scales[chosen[a]];
    weights.row(t)[a] = broken ? __uint_as_float(0x7FC00000u) : w;
  }
}
