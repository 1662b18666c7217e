// out = g * sigmoid(alpha * g) * (u + 1), of clamped gate and up. Grid: width / 64, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}
{% include "activations.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ width }}u) { return; }
  let gate = arena[{{ gate.base }}u + id.y * {{ gate.stride }}u + id.x];
  let up = arena[{{ up.base }}u + id.y * {{ up.stride }}u + id.x];
  arena[{{ out.base }}u + id.y * {{ out.stride }}u + id.x] = clamped(gate, up, {{ number(alpha) }}, {{ number(limit) }});
}
