// A token's activations as float16, for matrix units: divided by a power of two, so that the largest is between 2^13 and 2^14 and
// nothing overflows. Zeros fill the last block. Of four columns the first and the third share a word, the second and the fourth the
// next: so weights of a byte come out of a word in two steps. Grid: 1, tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set threads = 256 %}

var<workgroup> largest: atomic<u32>;

// columns 4 * c and on
fn four(at: u32, c: u32) -> vec4<u32> {
  {% if x.base % 4 == 0 and columns % 4 == 0 %}
  if (c >= {{ columns // 4 }}u) { return vec4<u32>(0u); }
  return arena[(at >> 2u) + c];
  {% else %}
  var v = vec4<u32>(0u);
  for (var i = 0u; i < 4u; i++) {
    let word = at + c * 4u + i;
    if (c * 4u + i < {{ columns }}u) { v[i] = arena[word >> 2u][word & 3u]; }
  }
  return v;
  {% endif %}
}

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let t = group.y;
  let from_word = {{ x.base }}u + t * {{ x.stride }}u;
  if (index == 0u) { atomicStore(&largest, 0u); }
  workgroupBarrier();
  var sizes = vec4<u32>(0u);  // compared as integers, a NaN is the largest, and stays in what is divided
  for (var c = index; c < {{ (columns + 3) // 4 }}u; c += {{ threads }}u) { sizes = max(sizes, four(from_word, c) & vec4<u32>(0x7FFFFFFFu)); }
  let size = subgroupMax(max(max(sizes.x, sizes.y), max(sizes.z, sizes.w)));
  if (lane == 0u) { atomicMax(&largest, size); }
  workgroupBarrier();
  let exponent = clamp(atomicLoad(&largest) >> 23u, 14u, 253u);
  let inverse = bitcast<f32>((267u - exponent) << 23u);
  let to_word = ({{ halves.values.base }}u + t * {{ halves.values.stride }}u) >> 2u;
  for (var e = index; e < {{ halves.words // 4 }}u; e += {{ threads }}u) {
    let a = bitcast<vec4<f32>>(four(from_word, 2u * e)) * inverse;
    let b = bitcast<vec4<f32>>(four(from_word, 2u * e + 1u)) * inverse;
    arena[to_word + e] = vec4<u32>(pack2x16float(a.xz), pack2x16float(a.yw), pack2x16float(b.xz), pack2x16float(b.yw));
  }
  if (index == 0u) {
    let at = {{ halves.scales.base }}u + t * {{ halves.scales.stride }}u;
    arena[at >> 2u][at & 3u] = (exponent - 13u) << 23u;
  }
}
