// What an activation makes of a gate and what it gates. FUNCTION, a macro of the kernel, is one of `functions.cuh` or of these names.
#pragma once
#include "functions.cuh"

enum Gate { clamped = 100, limited };

// `alpha` and `limit`: of `clamped` and `limited`, as the kernels of these names have them
template <int F>
__device__ __forceinline__ float gate_of(float g, float u, float alpha, float limit) {
  if constexpr (F == clamped || F == limited) {
    if constexpr (F == limited) g = function_of<silu>(g, Constants{});  // a NaN stays one
    g = g > limit ? limit : g;
    u = u > limit ? limit : u < -limit ? -limit : u;
    return F == limited ? g * u : g * f_sigmoid(alpha * g) * (u + 1.0f);
  } else {
    return function_of<(Function)F>(g, Constants{}) * u;
  }
}
