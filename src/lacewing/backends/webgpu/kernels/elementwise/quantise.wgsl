// Activations to bytes: one thread a group of 32. Grid: groups / 64, tokens.
{% set words = "u32" %}
{% include "step.wgsl" %}
{% include "q8.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ groups }}u) { return; }
  let at = {{ x.base }}u + id.y * {{ x.stride }}u + id.x * 32u;
  var values: array<f32, 32>;
  for (var i = 0u; i < 32u; i++) { values[i] = bitcast<f32>(arena[at + i]); }
  store_q8(id.y, id.x, &values);
}
