// out = activation(gate) * up (gated_four.wgsl), with the row's bytes where wanted; a thread four values. Grid: width / 256, tokens.
{% set words = "vec4<u32>" %}
{% set threads = 64 %}
{% include "step.wgsl" %}
{% include "activations.wgsl" %}
{% if q8 %}
{% include "neighbours.wgsl" %}
{% endif %}
{% include "gated_four.wgsl" %}

@compute @workgroup_size({{ threads }})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let t = id.y;
  let there = id.x < {{ width // 4 }}u;
  let value = gated_four(t, min(id.x, {{ width // 4 - 1 }}u));
  if (there) { arena[({{ out.base }}u + t * {{ out.stride }}u) / 4u + id.x] = bitcast<vec4<u32>>(value); }
  {% if q8 %}
  store_four(index, t, id.x, value, there);
  {% endif %}
}
