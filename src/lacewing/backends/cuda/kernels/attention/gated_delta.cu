// Linear attention by the gated delta rule, token by token, from a row's unit on, which it leaves in another unit. A block has 32
// columns of a head's state, and TEAMS warps that share its rows; a thread keeps EACH rows of a column in registers. What the old state
// gives for k and q is summed over the warps once a token, in one of two places by turns: a barrier a token.
// Grid: blocks of columns, heads, rows of the run.
//! EACH 2 4 8 16 32
//! threads 256
//! early
#include "ptx.cuh"
#include "functions.cuh"

#define TEAMS (THREADS / WARP)

struct Delta {
  int heads, key_heads, rows, width, tiled, by_row, log_rate, group;
  float scale, eps;
};

extern "C" __global__ void __launch_bounds__(THREADS)
    gated_delta(Step step, View q, View k, View v, View decay, View beta, View out, float* const* store, const float* rate,
                const float* bias, Delta d) {
  start_after();
  wait_before();
  __shared__ float recalled[2][TEAMS][WARP], asked[2][TEAMS][WARP], products[2][TEAMS][3];
  int head = blockIdx.y, part = blockIdx.z, team = threadIdx.x / WARP, lane = threadIdx.x % WARP, c = blockIdx.x * WARP + lane;
  bool there = c < d.width;
  int key_head = d.tiled ? head % d.key_heads : head / (d.heads / d.key_heads);
  int first = step.part_first(part), tokens = step.part_tokens(part), row = step.row(first), first_row = team * EACH;
  size_t size = (size_t)d.heads * d.rows * d.width, place = ((size_t)head * d.rows + first_row) * d.width + c;
  int before = step.unit_in(d.group, row);
  float s[EACH], ks[EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    bool mine = before >= 0 && there && first_row + i < d.rows;
    s[i] = mine ? (*store)[before * size + place + (size_t)i * d.width] : 0.0f;
  }
  float speed = d.log_rate ? -expf(rate[head]) : rate[head];
  for (int n = 0; n < tokens; n++) {
    int t = first + n, turn = n & 1;
    const float *q_at = q.row(t) + key_head * d.rows + first_row, *k_at = k.row(t) + key_head * d.rows + first_row;
    float kk = 0.0f, qq = 0.0f, qk = 0.0f, of_k = 0.0f, of_q = 0.0f;
    float kept = d.by_row ? 0.0f : expf(speed * f_softplus(decay.row(t)[head] + bias[head]));
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      ks[i] = 0.0f;
      if (first_row + i < d.rows) {
        int at = head * d.rows + first_row + i;
        float query = q_at[i];
        ks[i] = k_at[i];
        s[i] *= d.by_row ? expf(speed * f_softplus(decay.row(t)[at] + bias[at])) : kept;
        kk += ks[i] * ks[i];
        qq += query * query;
        qk += query * ks[i];
        of_k += ks[i] * s[i];
        of_q += query * s[i];
      }
    }
    recalled[turn][team][lane] = of_k;
    asked[turn][team][lane] = of_q;
    if (lane == 0) products[turn][team][0] = kk, products[turn][team][1] = qq, products[turn][team][2] = qk;
    __syncthreads();
    of_k = of_q = kk = qq = qk = 0.0f;
    for (int other = 0; other < TEAMS; other++) {
      of_k += recalled[turn][other][lane];
      of_q += asked[turn][other][lane];
      kk += products[turn][other][0];
      qq += products[turn][other][1];
      qk += products[turn][other][2];
    }
    float k_size = 1.0f / sqrtf(kk + d.eps), q_size = d.scale / sqrtf(qq + d.eps), u = 0.0f;
    if (there) {
      float value = v.row(t)[head * d.width + c];
      u = k_size * f_sigmoid(beta.row(t)[head]) * (value - k_size * of_k);
      if (team == 0) out.row(t)[head * d.width + c] = q_size * (of_q + qk * u);
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) s[i] += ks[i] * u;
  }
  float* after = *store + step.unit_out(d.group, row) * size + place;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    if (there && first_row + i < d.rows) after[(size_t)i * d.width] = s[i];
  }
}
