{# A token's activations as float16, for matrix units: divided by a power of two, so that the largest is between 2^13 and 2^14 and
   nothing overflows. Zeros fill the last block. Of four columns the first and the third share a word, the second and the fourth the
   next: so weights of a byte come out of a word in two steps. The kernel sees the arena as vec4<u32>; constant: `halves`. #}
var<workgroup> row_size: atomic<u32>;

// Of finite numbers. Others stay what they are, whatever they are divided by, and the token's other experts must not see them: the part
// of an expert that another device has still holds what an earlier run left.
fn size_of(v: vec4<f32>) -> u32 {
  let bits = bitcast<vec4<u32>>(v) & vec4<u32>(0x7FFFFFFFu);
  let sizes = select(vec4<u32>(0u), bits, bits < vec4<u32>(0x7F800000u));
  return max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
}

// The exponent of a row's largest number; `size`: that of a thread's own numbers. All threads of the workgroup call it.
fn row_exponent(index: u32, size: u32) -> u32 {
  if (index == 0u) { atomicStore(&row_size, 0u); }
  workgroupBarrier();
  let most = subgroupMax(size);
  if (index % {{ variant.lanes }}u == 0u) { atomicMax(&row_size, most); }
  workgroupBarrier();
  return clamp(atomicLoad(&row_size) >> 23u, 14u, 253u);
}

fn inverse_of(exponent: u32) -> f32 { return bitcast<f32>((267u - exponent) << 23u); }

fn keep_scale(t: u32, exponent: u32) {
  let at = {{ halves.scales.base }}u + t * {{ halves.scales.stride }}u;
  arena[at >> 2u][at & 3u] = (exponent - 13u) << 23u;
}

fn halved(v: vec4<f32>) -> vec2<u32> { return vec2<u32>(pack2x16float(v.xz), pack2x16float(v.yw)); }

// Four of a row's columns, `four` of them before; of those behind its end the zeros.
fn keep_halves(t: u32, four: u32, v: vec4<f32>) {
  let at = {{ halves.values.base }}u + t * {{ halves.values.stride }}u + 2u * four;
  let pair = halved(v);
  arena[at >> 2u][at & 3u] = pair.x;
  arena[at >> 2u][(at & 3u) + 1u] = pair.y;
}
