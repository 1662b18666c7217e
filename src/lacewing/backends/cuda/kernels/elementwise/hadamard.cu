// Every `size` values times the Hadamard matrix in Sylvester's order, over sqrt(size), in place. Grid: runs of `size`, tokens.
//! threads 128
//! early
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) hadamard(View x, int size) {
  start_after();
  wait_before();
  extern __shared__ float values[];
  float* at = x.row(blockIdx.y) + blockIdx.x * size;
  for (int i = threadIdx.x; i < size; i += THREADS) values[i] = at[i];
  __syncthreads();
  for (int half = 1; half < size; half *= 2) {
    for (int i = threadIdx.x; i < size / 2; i += THREADS) {
      int low = i / half * 2 * half + i % half;
      float a = values[low], b = values[low + half];
      values[low] = a + b;
      values[low + half] = a - b;
    }
    __syncthreads();
  }
  float scale = sqrtf((float)size);
  for (int i = threadIdx.x; i < size; i += THREADS) at[i] = values[i] / scale;
}
