// Chooses the experts of a token: the `active` best of `experts`, best first. Scores are compared as integers in the order of the floats;
// the place of an expert is the number of those before it, for which several threads count where there are fewer experts than threads.
// GATING is a macro of the kernel. Shared memory, from `keys` on: keys of the experts, a multiple of four, and their shares; then of the
// active ones best shares and ids; then keys of the runs.
#pragma once
#include "ptx.cuh"
#include "functions.cuh"

enum Gating { softmax, sparsemixer, by_sigmoid };
#define NOT_A_NUMBER 0xFFFFFFFFu
#define GATE_sigmoid by_sigmoid
#define GATE_softmax softmax
#define GATE_sparsemixer sparsemixer
#define GATE_(g) GATE_##g
#define GATE(g) GATE_(g)

// in the order of the floats, the zeros alike; what is not finite above all
DEVICE u32 key_of(float value) {
  u32 bits = __float_as_uint(value), size = bits & 0x7FFFFFFFu;
  if (size >= 0x7F800000u) return NOT_A_NUMBER;
  if (size == 0) return 0x80000000u;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct Choice {
  int experts, active, groups, groups_used, group_best, renormalise;
  float scale, jitter;
};

// Where a router's decisions go. `kept` points to where they are kept for people who watch, or to null: (token, stride) from word `first`
// on ids, then shares.
struct Decisions {
  View ids, weights;
  const float *bias, *scales;
  u32* const* kept;
  int stride, first;
};

// How many experts come before expert e. Their keys are `count` groups of four, zeros at the end; the `team` threads of e share the count.
// Those with lower ids come first among equals: up to the four that has the warp's first expert every equal one does, and behind the four
// of its last one none.
DEVICE int place_of(const uint4* fours, int count, int e, int low, int high, int member, int team) {
  const u32 mine = ((const u32*)fours)[e];
  int place = 0, i = member;
  auto add = [&](uint4 k, u32 x, u32 y, u32 z, u32 w) { place += (k.x >= x) + (k.y >= y) + (k.z >= z) + (k.w >= w); };
  for (; i < low; i += team) add(fours[i], mine, mine, mine, mine);
  for (; i < min(high, count); i += team) {
    int at = 4 * i;
    add(fours[i], mine + (at >= e), mine + (at + 1 >= e), mine + (at + 2 >= e), mine + (at + 3 >= e));
  }
  for (; i < count; i += team) add(fours[i], mine + 1, mine + 1, mine + 1, mine + 1);
#pragma unroll
  for (int step = 1; step < WARP; step <<= 1) {
    if (step < team) place += __shfl_xor_sync(ALL, place, step);
  }
  return place;
}

// by all threads of a block; `from`: the token's logits
template <Gating gating>
DEVICE void choose_experts(const float* from, int t, const Decisions& to, const Choice& c, u32* keys) {
  int fours = (c.experts + 3) / 4, lane = threadIdx.x;
  float *shares = (float*)(keys + 4 * fours), *best = shares + c.experts;
  int* chosen = (int*)(best + c.active);
  u32* runs = (u32*)(chosen + c.active);
  __shared__ int failed;
  __shared__ float tops[WARP];
  if (lane == 0) failed = 0;
  __syncthreads();
  u32* watched = *to.kept ? *to.kept + (size_t)t * to.stride + to.first : nullptr;
  float top = NONE;
  for (int e = lane; e < 4 * fours; e += THREADS) {
    float value = e < c.experts ? from[e] : 0.0f;
    u32 key = e < c.experts ? key_of(value) : 0;
    keys[e] = key;
    if (key == NOT_A_NUMBER) failed = 1;
    else if (e < c.experts) top = fmaxf(top, value);
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
  auto score = [&](int e) { return to.bias ? shares[e] + to.bias[e] : shares[e]; };
  if (to.bias) {
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
  int team = 1;
  while (team < 8 && c.experts * team * 2 <= THREADS) team *= 2;
  int each = THREADS / team, warp_each = WARP / team, member = lane % team, warp_first = lane / WARP * warp_each;
  for (int first = 0; first < c.experts; first += each) {  // the same for all threads of a warp, for the shuffles
    int e = first + lane / team, low = (first + warp_first) / 4, high = (first + warp_first + warp_each - 1) / 4 + 1;
    int place = place_of((const uint4*)keys, fours, min(e, c.experts - 1), min(low, fours), high, member, team);
    if (e >= c.experts || member) continue;
    if (broken) place = e;
    if (place < c.active) {
      to.ids.ids(t)[place] = e;
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
    if (to.scales) w *= to.scales[chosen[a]];
    to.weights.row(t)[a] = broken ? __uint_as_float(0x7FC00000u) : w;
  }
}
