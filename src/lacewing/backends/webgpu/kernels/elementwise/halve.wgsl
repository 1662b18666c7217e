// A token's activations as float16, for matrix units. Grid: 1, tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% include "halved.wgsl" %}
{% set threads = 256 %}

// columns 4 * c and on
fn four(at: u32, c: u32) -> vec4<f32> {
  {% if x.base % 4 == 0 and columns % 4 == 0 %}
  if (c >= {{ columns // 4 }}u) { return vec4<f32>(0.0); }
  return bitcast<vec4<f32>>(arena[(at >> 2u) + c]);
  {% else %}
  var v = vec4<u32>(0u);
  for (var i = 0u; i < 4u; i++) {
    let word = at + c * 4u + i;
    if (c * 4u + i < {{ columns }}u) { v[i] = arena[word >> 2u][word & 3u]; }
  }
  return bitcast<vec4<f32>>(v);
  {% endif %}
}

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let t = group.y;
  let from_word = {{ x.base }}u + t * {{ x.stride }}u;
  var size = 0u;
  for (var c = index; c < {{ (columns + 3) // 4 }}u; c += {{ threads }}u) { size = max(size, size_of(four(from_word, c))); }
  let exponent = row_exponent(index, size);
  let inverse = inverse_of(exponent);
  let to_word = ({{ halves.values.base }}u + t * {{ halves.values.stride }}u) >> 2u;
  for (var e = index; e < {{ halves.words // 4 }}u; e += {{ threads }}u) {
    arena[to_word + e] = vec4<u32>(halved(four(from_word, 2u * e) * inverse), halved(four(from_word, 2u * e + 1u) * inverse));
  }
  if (index == 0u) { keep_scale(t, exponent); }
}
