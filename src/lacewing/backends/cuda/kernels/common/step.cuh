// What every kernel sees: views of activations, the inputs of the step, pages. No headers of CUDA: they are not in NVRTC's wheel.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;
#define WARP 32
#define ALL 0xFFFFFFFFu
#define NONE -3.4028235e38f

// columns of a buffer of activations: row t begins at `at + t * stride`
struct View {
  float* at;
  int stride;
  __device__ float* row(int t) const { return at + (size_t)t * stride; }
  __device__ int* ids(int t) const { return (int*)row(t); }
};

// the inputs of the run, words at the places that `gpu/inputs.py` gives them
struct Step {
  int* words;
  int tokens, token_rows, positions, outputs, decode, parts, units_in, units_out, chosen, rows;
  __device__ int count() const { return words[0]; }
  __device__ int output_count() const { return words[1]; }
  __device__ int first_output() const { return words[2]; }
  __device__ int decode_count() const { return words[3]; }
  __device__ int part_count() const { return words[4]; }
  __device__ int long_parts() const { return words[5]; }  // those in tiles, the first ones
  __device__ int token(int t) const { return words[tokens + t]; }
  __device__ int row(int t) const { return words[token_rows + t]; }  // of the block tables
  __device__ int position(int t) const { return words[positions + t]; }
  __device__ int output(int r) const { return words[outputs + r]; }
  __device__ int decode_token(int i) const { return words[decode + i]; }
  __device__ int part_first(int p) const { return words[parts + 2 * p]; }
  __device__ int part_tokens(int p) const { return words[parts + 2 * p + 1]; }
  // the unit of fixed group `group` that holds the state of a row before the run (-1: zeros), and the one it is written to
  __device__ int unit_in(int group, int row) const { return words[units_in + group * rows + row]; }
  __device__ int unit_out(int group, int row) const { return words[units_out + group * rows + row]; }
};

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int n = 16; n > 0; n >>= 1) v += __shfl_xor_sync(ALL, v, n);
  return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int n = 16; n > 0; n >>= 1) v = fmaxf(v, __shfl_xor_sync(ALL, v, n));
  return v;
}

// over all threads of a block, which are whole warps; every thread gets it
__device__ __forceinline__ float block_sum(float v) {
  __shared__ float sums[WARP];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  v = warp_sum(v);
  __syncthreads();
  if (lane == 0) sums[warp] = v;
  __syncthreads();
  return warp_sum(lane < warps ? sums[lane] : 0.0f);
}

// float16 by its bits
__device__ __forceinline__ float half_float(u32 bits) {
  float v;
  asm("{ .reg .f16 h; .reg .b16 b; cvt.u16.u32 b, %1; mov.b16 h, b; cvt.f32.f16 %0, h; }" : "=f"(v) : "r"(bits & 0xFFFFu));
  return v;
}

__device__ __forceinline__ u32 half_bits(float v) {
  u32 bits;
  asm("{ .reg .f16 h; .reg .b16 b; cvt.rn.f16.f32 h, %1; mov.b16 b, h; cvt.u32.u16 %0, b; }" : "=r"(bits) : "f"(v));
  return bits;
}

__device__ __forceinline__ float2 halves_float(u32 word) { return make_float2(half_float(word), half_float(word >> 16)); }
