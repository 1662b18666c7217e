// As `gemm_mma`, of activations as bytes and codes as int8, for cards whose products of float16 run at half rate if their sums are float32:
// an integer product for each group of columns, whose result is multiplied with the scales in float32. A block makes a tile of 128 rows and
// N tokens, a warp 32 rows and a quarter of the tokens; 128 columns at a time stand in shared memory. There a thread puts a group of weights
// as int8, which it has asked for while the block worked on the columns before; the codes of activations are copied as they stand.
// Grid: tiles of tokens, tiles of rows, splits of the columns. Shared memory: `byte_tile_shared` of `products.py`.
//! arch 80
//! QUANT coded
//! N 32 64 128
//! GROUPED 0 1
//! threads 512
//! early
#include "factors.cuh"
#include "tiles.cuh"

#define MT (N > 32 ? 2 : 1)                        // of 16 rows of a warp
#define ROW_WARPS (8 / MT)
#define TOKEN_WARPS (THREADS / WARP / ROW_WARPS)
#define NT (N / 8 / TOKEN_WARPS)                   // of 8 tokens of a warp
#define STAGES (sizeof(TokenFactors) > 8 ? 2 : 3)
#define WEIGHT_BYTES (128 * 128)
#define TOKEN_BYTES (N * 128)
#define COPIES (N > 64 ? 2 : 1)                    // of 16 bytes of activations that a thread asks for, of tokens 64 apart

extern __shared__ __align__(128) uint4 shared[];

// where 16 bytes of a row stand, of eight: eight rows are on different banks
DEVICE int place_of(int row, int chunk) { return row * 8 + (chunk ^ (row & 7)); }

extern "C" __global__ void __launch_bounds__(THREADS)
    gemm_bytes(Step step, const uint4* x, const uint2* x_scales, Planes planes, Outs outs, const float* bias, int rows, int groups, int by_rows,
               float scale, float softcap, float4* partial, u32* counters, const int* list, View factor, Experts experts, int separate) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane >> 2, t = lane & 3, pieces = (groups + 3) / 4;
  int begin = pieces * blockIdx.z / gridDim.z, end = pieces * (blockIdx.z + 1) / gridDim.z;
  int warp_row = warp % ROW_WARPS * (16 * MT), warp_token = warp / ROW_WARPS * (8 * NT), mine = threadIdx.x >> 2, quarter = threadIdx.x & 3;
  uint4 *codes = shared, *inputs = shared + 2 * (WEIGHT_BYTES / 16);
  RowFactors* row_scales = (RowFactors*)(inputs + STAGES * (TOKEN_BYTES / 16));
  TokenFactors* token_scales = (TokenFactors*)(row_scales + 2 * 4 * 128);
  TokenTile tile;
  start_after();
#if GROUPED
  wait_before();
#endif
  if (!token_tile(tile, N, by_rows ? step.output_count() : step.count(), list, experts)) return;
  u32 weights_from = ((u32)tile.expert * rows + min((int)blockIdx.y * 128 + mine, rows - 1)) * groups + quarter;
  int groups_left = groups - quarter - 4 * begin;  // from this thread's next one on
  keep(weights_from += 4 * begin);
  Raw raw = groups_left > 0 ? load_raw(planes, weights_from) : no_raw();
#if !GROUPED
  wait_before();
#endif
  auto input_row = [&](int token) {
    token = min(token, tile.count - 1);
#if GROUPED
    int pair = tile.pairs[token];
    return (u32)(separate ? pair : pair / experts.active) * groups;
#else
    return (u32)(tile.first + token) * groups;
#endif
  };
  u32 from[COPIES], scales_from = input_row(mine) + quarter + 4 * begin, copy_to = place_of(threadIdx.x >> 3, threadIdx.x & 7) * 16;
  int copies_left = threadIdx.x < N * 8 ? groups - (int)(threadIdx.x >> 1 & 3) - 4 * begin : 0;
  keep(scales_from);
  keep(copy_to += shared_address(inputs));
#pragma unroll
  for (int i = 0; i < COPIES; i++) keep(from[i] = input_row((threadIdx.x >> 3) + 64 * i) * 2 + (threadIdx.x & 7) + 8 * begin);
  u32 copy_stage = 0;
  auto bring = [&](int piece) {
    if (piece < end && threadIdx.x < N * 8) {
#pragma unroll
      for (int i = 0; i < COPIES; i++) {
        copy_async(copy_to + copy_stage + i * THREADS * 16, x + (copies_left > 0 ? from[i] : 0), copies_left > 0);
        from[i] += 8;
      }
      copies_left -= 4;
      copy_stage = copy_stage == (STAGES - 1) * TOKEN_BYTES ? 0 : copy_stage + TOKEN_BYTES;
    }
    copies_commit();
  };
  auto load_factors = [&] { return mine < N && groups_left > 0 ? load_scales(x_scales + scales_from) : make_uint2(0, 0); };
  u32 put_to = place_of(mine, 2 * quarter), factors_to = quarter * 128 + mine;
  keep(put_to);
  keep(factors_to);
  auto put_down = [&](uint2 input, int turn) {
    const Group weights = group_of(raw);
    codes[turn * (WEIGHT_BYTES / 16) + put_to] = weights.a;
    codes[turn * (WEIGHT_BYTES / 16) + (put_to ^ 1)] = weights.b;
    row_scales[turn * 4 * 128 + factors_to] = row_factors(weights);
    if (mine < N) token_scales[turn * 4 * 128 + factors_to] = token_factors(input);
  };
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) bring(begin + i);
  put_down(load_factors(), 0);

  int magic[4] = {MAGIC, MAGIC, MAGIC, MAGIC};
#pragma unroll
  for (int i = 0; i < 4; i++) keep((u32&)magic[i]);
  u32 a_at = shared_address(codes + place_of(warp_row + (lane & 15), lane >> 4)), rows_from = warp_row + g;
  u32 b_at = shared_address(inputs + place_of(warp_token + (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1)), tokens_from = warp_token + 2 * t;
  keep(a_at);
  keep(b_at);
  float sums[MT][NT][4] = {};
  for (int piece = begin, turn = 0, stage = 0; piece < end; piece++, turn ^= 1) {
    copies_wait<STAGES - 2>();
    __syncthreads();
    bring(piece + STAGES - 1);
    bool more = piece + 1 < end;
    uint2 input = make_uint2(0, 0);
    if (more) {
      groups_left -= 4, weights_from += 4, scales_from += 4;
      raw = groups_left > 0 ? load_raw(planes, weights_from) : no_raw();
      input = load_factors();
    }
    u32 a_from = a_at + turn * WEIGHT_BYTES, b_from = b_at + stage;
    const RowFactors* rows_at = row_scales + turn * 4 * 128 + rows_from;
    const TokenFactors* tokens_at = token_scales + turn * 4 * 128 + tokens_from;
    stage = stage == (STAGES - 1) * TOKEN_BYTES ? 0 : stage + TOKEN_BYTES;
#pragma unroll 1
    for (int h = 0; h < 4; h++) {
      u32 a[MT][4];
      RowFactors r[MT][2];
#pragma unroll
      for (int m = 0; m < MT; m++) {
        load_matrices(a[m], (a_from ^ h * 32) + m * 16 * 128);
        r[m][0] = rows_at[h * 128 + m * 16];
        r[m][1] = rows_at[h * 128 + m * 16 + 8];
      }
#pragma unroll
      for (int n = 0; n < NT; n += 2) {
        u32 b[4];
        load_matrices(b, (b_from ^ h * 32) + n * 8 * 128);
#pragma unroll
        for (int k = 0; k < 2; k++) {
          TokenFactors f[2] = {tokens_at[h * 128 + (n + k) * 8], tokens_at[h * 128 + (n + k) * 8 + 1]};
          float offset[2] = {offset_of(f[0]), offset_of(f[1])};
#pragma unroll
          for (int m = 0; m < MT; m++) add_group(sums[m][n + k], a[m], b[2 * k], b[2 * k + 1], r[m], f, offset, magic);
        }
      }
    }
    if (more) put_down(input, turn ^ 1);
  }
  copies_wait<0>();
  token_tile(tile, N, by_rows ? step.output_count() : step.count(), list, experts);  // again, instead of in registers all the time
  if (!joined<MT * NT>([&](int i) -> float* { return sums[i / NT][i % NT]; }, partial, counters)) return;
  auto row_of = [&](int i) { return (int)blockIdx.y * 128 + warp_row + i * 8 + g; };
  Target targets[2 * MT];
#pragma unroll
  for (int i = 0; i < 2 * MT; i++) targets[i] = target_of(outs, bias, min(row_of(i), rows - 1), rows, tile, experts);
#pragma unroll
  for (int n = 0; n < NT; n++) {
#pragma unroll
    for (int c = 0; c < 2; c++) {
      int number = warp_token + n * 8 + 2 * t + c;
      if (number >= tile.count) continue;
      const Column column = column_of(number, tile, experts, factor);
#pragma unroll
      for (int i = 0; i < 2 * MT; i++) {
        if (row_of(i) < rows) store_result(targets[i], sums[i >> 1][n][2 * (i & 1) + c], column, experts, scale, softcap);
      }
    }
  }
}
