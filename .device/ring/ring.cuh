// What GEMVs of one token on Hopper share: weights pass through shared memory, where each warp has SLOTS places for SPAN groups of ROWS
// rows. The copy engine fills them while the warp works on others, so that a kernel asks for its first weights while the one before it
// still runs, and few registers wait for memory. Rows have a multiple of 32 groups.
#pragma once
#define FROM_SHARED
#include "pieces.cuh"
#include "raw.cuh"
#include "bytes.cuh"

#define WARPS (THREADS / WARP)
#define STEPS (SPAN / 32)
extern __shared__ uint4 shared[];

// bytes that 32 groups of a row have in each plane
struct PlaneBytes {
  int of[4];
};

// Activations as two planes, so that neighbours read neighbouring words; then the scales. See `chunks.cuh`.
DEVICE void bring_input(const Bytes& x, int units) {
  const uint4* codes = (const uint4*)x.codes;
  for (int i = threadIdx.x; i < 2 * units; i += THREADS) shared[(i & 1) * units + (i >> 1)] = codes[i];
  for (int g = threadIdx.x; g < units; g += THREADS) {
    uint2 f = x.scales[g];
    float scale = __uint_as_float(f.x), upper = scale * (float)((int)f.y >> 16);
    ((Input*)(shared + 2 * units))[g] = {scale, scale * (float)(short)(f.y & 0xFFFFu) + upper, upper};
  }
}

struct Ring {
  const Planes& planes;
  const PlaneBytes& bytes;
  char* slots;  // of this warp
  u32 barriers;
  int units, size;  // bytes of a slot

  DEVICE Ring(const Planes& p, const PlaneBytes& b, u64* all_barriers, int units) : planes(p), bytes(b), units(units) {
    const int warp = threadIdx.x / WARP;
    size = ROWS * STEPS * (b.of[0] + b.of[1] + b.of[2] + b.of[3]);
    slots = (char*)shared + units * (2 * sizeof(uint4) + sizeof(Input)) + warp * SLOTS * size;
    barriers = shared_address(all_barriers + warp * SLOTS);
    if (threadIdx.x % WARP < SLOTS) barrier_begin(barriers + threadIdx.x % WARP * sizeof(u64));
    __syncwarp();
  }

  // Lane 4 * r + p has plane p of row r brought: its groups from `start` on, up to SPAN. first[r]: the row's first group.
  DEVICE void bring(int slot, const u32 (&first)[ROWS], int start) const {
    const int lane = threadIdx.x % WARP, steps = min(STEPS, (units - start) / 32);
    const u32 barrier = barriers + slot * sizeof(u64);
    if (lane == 0) barrier_expect(barrier, size / STEPS * steps);
    if (lane >= 4 * ROWS) return;
    const int p = lane % 4, row = lane / 4;
    const u32 each = p == 0 ? bytes.of[0] : p == 1 ? bytes.of[1] : p == 2 ? bytes.of[2] : bytes.of[3];
    if (each == 0) return;
    const u32* plane = p == 0 ? planes.plane[0] : p == 1 ? planes.plane[1] : p == 2 ? planes.plane[2] : planes.plane[3];
    const u32 before = (p > 0 ? bytes.of[0] : 0) + (p > 1 ? bytes.of[1] : 0) + (p > 2 ? bytes.of[2] : 0);
    u32 group = first[0];
#pragma unroll
    for (int r = 1; r < ROWS; r++) group = row == r ? first[r] : group;
    copy_piece(shared_address(slots + slot * size) + STEPS * (ROWS * before + row * each),
               (const char*)plane + (size_t)((group + start) / 32) * each, steps * each, barrier);
  }

  DEVICE void wait(int slot, u32 parity) const { barrier_wait(barriers + slot * sizeof(u64), parity); }

  // where the planes of a slot stand: row r's groups from number r * SPAN on
  DEVICE Planes at(int slot) const {
    const char* p = slots + slot * size;
    const int rows = ROWS * STEPS;
    const u32* first = (const u32*)p;
    return {{first, first + rows * bytes.of[0] / 4, first + rows * (bytes.of[0] + bytes.of[1]) / 4,
             first + rows * (bytes.of[0] + bytes.of[1] + bytes.of[2]) / 4}};
  }
};

// what a lane has of a slot
struct Part {
  Raw raw[ROWS][STEPS];
};

DEVICE void load_part(Part& part, const Planes& from, int start, int units) {
#pragma unroll
  for (int u = 0; u < STEPS; u++) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      part.raw[r][u] = start + 32 * u < units ? load_raw(from, r * SPAN + 32 * u + threadIdx.x % WARP) : no_raw();
    }
  }
}

DEVICE void add_part(float (&sums)[ROWS], const Part& part, int start, int units) {
#pragma unroll
  for (int u = 0; u < STEPS; u++) {
    const int at = min(start + 32 * u + (int)(threadIdx.x % WARP), units - 1);
    const uint4 a = shared[at], b = shared[units + at];
    const Input f = ((const Input*)(shared + 2 * units))[at];
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] += dot_group(part.raw[r][u], a, b, f);
  }
}
