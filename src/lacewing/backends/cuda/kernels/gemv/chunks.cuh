// What GEMVs of one token share: a warp makes ROWS rows at a time, each thread with every 32nd group of 32 (or eight floats), UNROLL of
// them together, a chunk. The activations stand in shared memory, as two planes so that neighbours read neighbouring words.
#pragma once
#include "raw.cuh"
#include "bytes.cuh"

#define WARPS (THREADS / WARP)
extern __shared__ uint4 shared[];

#ifdef EIGHTS
#define UNITS(groups) ((groups) * 4)
typedef Eight Unit;
DEVICE Unit load_unit(const Planes& p, u32 at) { return load_eight(p, at); }
DEVICE Unit no_unit() { return Unit{}; }
#else
#define UNITS(groups) (groups)
typedef Raw Unit;
DEVICE Unit load_unit(const Planes& p, u32 at) { return load_raw(p, at); }
DEVICE Unit no_unit() { return no_raw(); }
#endif

struct Chunk {
  Unit unit[ROWS][UNROLL];
};

DEVICE void load_chunk(Chunk& c, const Planes& p, const u32 (&first)[ROWS], int start, int units) {
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      int at = start + 32 * u + threadIdx.x % WARP;
      c.unit[r][u] = at < units ? load_unit(p, first[r] + at) : no_unit();
    }
  }
}

#ifdef EIGHTS
// floats, zeros behind the last column
DEVICE void bring_input(const float* x, int columns, int units) {
  for (int c = threadIdx.x; c < units * 8; c += THREADS) {
    ((float*)shared)[(c >> 2 & 1) * units * 4 + (c >> 3) * 4 + (c & 3)] = c < columns ? x[c] : 0.0f;
  }
}
DEVICE void add_chunk(float (&sums)[ROWS], const Chunk& c, int start, int units) {
#pragma unroll
  for (int u = 0; u < UNROLL; u++) {
    int at = min(start + 32 * u + (int)(threadIdx.x % WARP), units - 1);
    float4 a = ((const float4*)shared)[at], b = ((const float4*)shared)[units + at];
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] += dot_eight(c.unit[r][u], a, b);
  }
}
#else
// codes and scales are asked for together, so that they are waited for once
DEVICE void bring_input(const Bytes& x, int t, int units) {
  const uint4* codes = (const uint4*)x.codes + (size_t)t * units * 2;
  const uint2* scales = x.scales + (size_t)t * units;
#pragma unroll 4
  for (int i = threadIdx.x; i < 2 * units; i += THREADS) {
    const uint4 code = codes[i];
    const uint2 f = scales[min(i, units - 1)];
    shared[(i & 1) * units + (i >> 1)] = code;
    if (i < units) ((Input*)(shared + 2 * units))[i] = input_of(f);
  }
}
DEVICE void add_chunk(float (&sums)[ROWS], const Chunk& c, int start, int units) {
#pragma unroll
  for (int u = 0; u < UNROLL; u++) {
    int at = min(start + 32 * u + (int)(threadIdx.x % WARP), units - 1);
    uint4 a = shared[at], b = shared[units + at];
    Input f = ((const Input*)(shared + 2 * units))[at];
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] += dot_group(c.unit[r][u], a, b, f);
  }
}
#endif
