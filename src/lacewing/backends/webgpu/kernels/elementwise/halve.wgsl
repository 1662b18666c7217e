// A token's activations as float16, for matrix units: divided by a power of two, so that the largest is between 2^13 and 2^14 and
// nothing overflows. Zeros fill the last block. Grid: 1, tokens.
{% set words = "u32" %}
{% include "step.wgsl" %}
{% set threads = 128 %}

var<workgroup> sizes: array<u32, {{ threads }}>;

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let t = group.y;
  let from_word = {{ x.base }}u + t * {{ x.stride }}u;
  var size = 0u;  // compared as integers, a NaN is the largest, and stays in what is divided
  for (var c = index; c < {{ columns }}u; c += {{ threads }}u) { size = max(size, arena[from_word + c] & 0x7FFFFFFFu); }
  sizes[index] = size;
  workgroupBarrier();
  for (var i = 0u; i < {{ threads }}u; i++) { size = max(size, sizes[i]); }
  let exponent = clamp(size >> 23u, 14u, 253u);
  let inverse = bitcast<f32>((267u - exponent) << 23u);
  let to_word = {{ halves.values.base }}u + t * {{ halves.values.stride }}u;
  for (var w = index; w < {{ halves.words }}u; w += {{ threads }}u) {
    var pair = vec2<f32>(0.0);
    if (2u * w < {{ columns }}u) { pair.x = bitcast<f32>(arena[from_word + 2u * w]); }
    if (2u * w + 1u < {{ columns }}u) { pair.y = bitcast<f32>(arena[from_word + 2u * w + 1u]); }
    arena[to_word + w] = pack2x16float(pair * inverse);
  }
  if (index == 0u) { arena[{{ halves.scales.base }}u + t * {{ halves.scales.stride }}u] = (exponent - 13u) << 23u; }
}
