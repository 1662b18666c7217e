// `load_values` of any quant: the 32 values of a group. QUANT is a macro of the kernel.
#include "quant.cuh"

#ifndef FLOATS
__device__ __forceinline__ void load_values(const Planes& p, size_t group, float* out) {
  Group g = load_group(p, group);
  values_of(g, out);
}
#endif
