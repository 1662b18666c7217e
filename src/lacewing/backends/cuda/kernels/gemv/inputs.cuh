// A group of activations in bytes, in the registers of a thread.
#pragma once
#include "raw.cuh"
#include "bytes.cuh"

#ifndef FLOATS
struct Activations {
  uint4 a, b;
  Input f;
};

// of all rows, number `group`
DEVICE Activations activations(const Bytes& x, size_t group) {
  const uint4* codes = (const uint4*)x.codes + group * 2;
  return {codes[0], codes[1], input_of(x.scales[group])};
}
#endif
