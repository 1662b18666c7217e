// What products on tensor cores share. W is the 16-row operand, straight from its planes: thread (g, t) of a warp has group t of each 128
// columns of rows g and g + 8 of MT tiles of 16 rows, and takes 4 + 4 of its values for two products of 16 columns; `half_rows.cu` puts activations in
// the same order. A block of 128 columns has PARTS parts, which are loaded one after another.
#pragma once
#include "raw.cuh"
#include "tiles.cuh"

#define UNITS (4 / PARTS)  // of a part: 2 x 16 columns

struct Weights {
  Raw raw[2 * MT];
};

// `first`: the planes' group where each row begins
DEVICE void load_weights(Weights& w, const Planes& p, const u32 (&first)[2 * MT], int part, int groups) {
  int group = part / PARTS * 4 + (threadIdx.x & 3);
#pragma unroll
  for (int i = 0; i < 2 * MT; i++) w.raw[i] = group < groups ? load_part(p, first[i] + group, part % PARTS) : no_raw();
}

struct Fragments {
  u32 v[2 * MT][4];
};

DEVICE void unpack(Fragments& f, const Weights& w, const Scale (&scales)[2 * MT], int unit, const Masks& masks) {
#pragma unroll
  for (int i = 0; i < 2 * MT; i++) halves(w.raw[i], scales[i], unit, masks, f.v[i]);
}
