// Tiles of tokens that products on tensor cores make, and where their results go.
// GROUPED: an expert has `rows` rows, and a tile of tokens is one of the list that `expert_lists.cu` makes.
#pragma once
#include "ptx.cuh"
#include "outs.cuh"
#include "capped.cuh"
#include "joined.cuh"

// what is kept in registers, however cheap it looks to make again
DEVICE void keep(u32& v) { asm volatile("" : "+r"(v)); }

struct Experts {
  int most_tiles, active, rows, parts, interleaved;  // rows: of a part
};

// A tile of tokens: `count` of them from `first` on; their activations stand from row `x_row` on.
struct TokenTile {
  int first, count, x_row, expert;
  const int* pairs;
};

// whether there is such a tile
DEVICE bool token_tile(TokenTile& tile, int tokens_a_tile, int tokens, const int* list, const Experts& e) {
#if GROUPED
  if (blockIdx.x >= list[0]) return false;
  const int* entry = list + 1 + 3 * blockIdx.x;
  tile = {entry[1], entry[2], (int)blockIdx.x * tokens_a_tile, entry[0], list + 1 + 3 * e.most_tiles + entry[1]};
#else
  int first = blockIdx.x * tokens_a_tile;
  tile = {first, min(tokens_a_tile, tokens - first), first, 0, nullptr};
#endif
  return tile.count > 0;
}

// Where a row of the matrix goes, and what is added to it; tokens are `stride` apart.
struct Target {
  float* at;
  int stride;
  float bias;
};
DEVICE Target target_of(const Outs& outs, const float* bias, int row, int rows, const TokenTile& tile, const Experts& e) {
#if GROUPED
  int part = e.interleaved ? row % e.parts : row / e.rows;
  View v = view_of(outs, part);
  return {v.at + (e.interleaved ? row / e.parts : row % e.rows), v.stride, bias ? bias[(size_t)tile.expert * rows + row] : 0.0f};
#else
  int before = 0;
  Target target = {nullptr, 0, bias ? bias[row] : 0.0f};
#pragma unroll
  for (int i = 3; i >= 0; i--) {
    before = i ? outs.end[i - 1] : 0;
    if (row < outs.end[i]) target.at = outs.view[i].at + (row - before), target.stride = outs.view[i].stride;
  }
  return target;
#endif
}

// The token of a column of a tile, and which of its active experts; what this one is multiplied with.
struct Column {
  int token, active;
  float factor;
};
DEVICE Column column_of(int column, const TokenTile& tile, const Experts& e, const View& factor) {
#if GROUPED
  int pair = tile.pairs[column], t = pair / e.active, a = pair % e.active;
  return {t, a, factor.at ? factor.row(t)[a] : 1.0f};
#else
  return {tile.first + column, 0, 1.0f};
#endif
}

DEVICE void store_result(const Target& target, float y, const Column& column, const Experts& e, float scale, float softcap) {
#if GROUPED
  target.at[(size_t)column.token * target.stride + column.active * e.rows] = y * column.factor + target.bias;
#else
  y = (y + target.bias) * scale;
  if (softcap > 0.0f) y = capped(y, softcap);
  target.at[(size_t)column.token * target.stride] = y;
#endif
}
DEVICE void store_result(const Target& target, float y, int column, const TokenTile& tile, const Experts& e, const View& factor, float scale,
                         float softcap) {
  store_result(target, y, column_of(column, tile, e, factor), e, scale, softcap);
}
