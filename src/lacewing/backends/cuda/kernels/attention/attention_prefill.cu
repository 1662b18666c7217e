// Attention of rows that have many tokens in the run, on tensor cores: a tile of QUERIES tokens of one head against KEYS keys at a time,
// which pass through two pieces of shared memory as float16; a warp has 16 of the tokens and keeps their softmax and sums in registers.
// Tiles of keys begin at whole multiples, so that a token's result does not depend on its neighbours. WIDTH: of a key and of a value, at
// most. Grid: tiles of tokens of all such rows, heads. Shared memory: 4 KEYS rows of 2 WIDTH + 16 bytes.
//! arch 80
//! KV f16 q8_0
//! WIDTH 64 128 256
//! threads 128
#include "eight.cuh"
#include "seen.cuh"

#define QUERIES (THREADS / 2)
#define KEYS (WIDTH == 256 ? 32 : 64)
#define CHUNKS (WIDTH / 8)
#define STRIDE (CHUNKS + 1)  // chunks of a row in shared memory; odd: eight rows are on different banks

extern __shared__ uint4 shared[];

DEVICE void load_transposed(u32 (&m)[4], u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(at));
}

// keys or values of positions `start` and on into shared memory; zeros outside of `low` to `end` and behind a row's values
template <Precision P>
DEVICE void bring(u32 to, const u32* rows_begin, const Rows& rows, int start, int low, int end, int row_chunks) {
#pragma unroll
  for (int i = threadIdx.x; i < KEYS * CHUNKS; i += THREADS) {
    const int key = i / CHUNKS, chunk = i % CHUNKS, position = start + key;
    const bool on = position >= low && position < end && chunk < row_chunks;
    const u32* from = rows_begin + (on ? key : 0) * rows.words;
    const u32 at = to + (key * STRIDE + chunk) * 16;
    if constexpr (P == f16) {
      copy_async(at, (const uint4*)from + (on ? chunk : 0), on);
    } else {
      const uint4 v = on ? load_eight<P>(from, rows, chunk) : make_uint4(0, 0, 0, 0);
      asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_prefill(Step step, View q, View out, u32* const* store, Pages pages, const float* sinks, Query a) {
  constexpr Precision P = KV;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane >> 2, t4 = lane & 3, head = blockIdx.y;
  int tile = gridDim.x - 1 - blockIdx.x, part = 0;  // the longest first
  for (; tile >= (step.part_tokens(part) + QUERIES - 1) / QUERIES; part++) tile -= (step.part_tokens(part) + QUERIES - 1) / QUERIES;
  const int first_token = step.part_first(part) + tile * QUERIES, count = min(QUERIES, step.part_tokens(part) - tile * QUERIES);
  const int row = step.row(first_token), position = step.position(first_token), end = position + count;
  const int key_head = head / (a.heads / a.key_heads), low = first_seen(position, a.window, a.span);
  const Rows& values = pages.values;
  u32* base = *store;
  const int key_chunks = (a.width + 7) / 8, value_chunks = (a.value_width + 7) / 8;

  const u32 keys_at = shared_address(shared), values_at = keys_at + 2 * KEYS * STRIDE * 16;
  auto bring_tile = [&](int start, int stage) {
    if (start < end) {
      bring<P>(keys_at + stage * KEYS * STRIDE * 16, row_at(step, base, pages, pages.keys, row, key_head, start), pages.keys, start, low, end,
               key_chunks);
      bring<P>(values_at + stage * KEYS * STRIDE * 16, row_at(step, base, pages, values, row, key_head, start), values, start, low, end,
               value_chunks);
    }
    copies_commit();
  };
  const int begin = low / KEYS * KEYS;
  bring_tile(begin, 0);

  // rows g and g + 8 of the warp's 16 tokens; those behind the last one repeat it
  u32 query[WIDTH / 16][4];
  int positions[2], from[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int t = min(warp * 16 + g + 8 * h, count - 1);
    positions[h] = position + t;
    from[h] = first_seen(positions[h], a.window, a.span);
    const float* at = q.row(first_token + t) + head * a.width;
#pragma unroll
    for (int k = 0; k < WIDTH / 16; k++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int d = 16 * k + 8 * half + 2 * t4;
        query[k][2 * half + h] = halves_of(d < a.width ? at[d] : 0.0f, d + 1 < a.width ? at[d + 1] : 0.0f);
      }
    }
  }
  float sums[WIDTH / 8][4] = {}, top[2], total[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    top[h] = sinks ? sinks[head] : NONE;
    total[h] = sinks && t4 == 0 ? 1.0f : 0.0f;
  }
  const int last = __shfl_sync(ALL, positions[1], 31);  // of the warp
  for (int start = begin, stage = 0; start < end; start += KEYS, stage ^= 1) {
    __syncthreads();
    bring_tile(start + KEYS, stage ^ 1);
    copies_wait<1>();
    __syncthreads();
    if (start > last) continue;
    float scores[KEYS / 8][4] = {};
    const u32 keys_of = keys_at + (stage * KEYS + (lane & 7) + ((lane >> 4) << 3)) * STRIDE * 16 + ((lane >> 3) & 1) * 16;
#pragma unroll
    for (int k = 0; k < WIDTH / 16; k++) {
#pragma unroll
      for (int n = 0; n < KEYS / 16; n++) {
        u32 b[4];
        load_matrices(b, keys_of + n * 16 * STRIDE * 16 + k * 32);
        mma(scores[2 * n], query[k][0], query[k][1], query[k][2], query[k][3], b[0], b[1]);
        mma(scores[2 * n + 1], query[k][0], query[k][1], query[k][2], query[k][3], b[2], b[3]);
      }
    }
    const bool whole = start >= from[0] && start >= from[1] && start + KEYS - 1 <= positions[0] && start + KEYS - 1 <= positions[1];
    const bool masked = __any_sync(ALL, !whole);
    float fade[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float higher = top[h];
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
          float& s = scores[n][2 * h + c];
          s *= a.scale;
          if (a.softcap > 0.0f) s = capped(s, a.softcap);
          const int key = start + 8 * n + 2 * t4 + c;
          if (masked && (key > positions[h] || key < from[h])) s = -__int_as_float(0x7F800000);
          higher = fmaxf(higher, s);
        }
      }
      higher = fmaxf(higher, __shfl_xor_sync(ALL, higher, 1));
      higher = fmaxf(higher, __shfl_xor_sync(ALL, higher, 2));
      fade[h] = __expf(top[h] - higher);
      top[h] = higher;
      float sum = 0.0f;
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
          float& s = scores[n][2 * h + c];
          s = __expf(s - higher);
          sum += s;
        }
      }
      total[h] = total[h] * fade[h] + sum;
    }
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++) {
      sums[n][0] *= fade[0], sums[n][1] *= fade[0], sums[n][2] *= fade[1], sums[n][3] *= fade[1];
    }
    const u32 values_of = values_at + (stage * KEYS + (lane & 15)) * STRIDE * 16 + (lane >> 4) * 16;
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
      const u32 p0 = halves_of(scores[2 * k][0], scores[2 * k][1]), p1 = halves_of(scores[2 * k][2], scores[2 * k][3]);
      const u32 p2 = halves_of(scores[2 * k + 1][0], scores[2 * k + 1][1]), p3 = halves_of(scores[2 * k + 1][2], scores[2 * k + 1][3]);
#pragma unroll
      for (int n = 0; n < WIDTH / 16; n++) {
        u32 b[4];
        load_transposed(b, values_of + k * 16 * STRIDE * 16 + n * 32);
        mma(sums[2 * n], p0, p1, p2, p3, b[0], b[1]);
        mma(sums[2 * n + 1], p0, p1, p2, p3, b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    total[h] += __shfl_xor_sync(ALL, total[h], 1);
    total[h] += __shfl_xor_sync(ALL, total[h], 2);
    const int t = warp * 16 + g + 8 * h;
    if (t >= count) continue;
    const float inverse = 1.0f / total[h];
    float* to = out.row(first_token + t) + head * a.value_width;
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++) {
#pragma unroll
      for (int c = 0; c < 2; c++) {
        const int d = 8 * n + 2 * t4 + c;
        if (d < a.value_width) to[d] = sums[n][2 * h + c] * inverse;
      }
    }
  }
}
