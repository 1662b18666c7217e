// The parts of heads, each to a place of its own; a thread a value. Grid: columns / 64, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ columns }}u) { return; }
  let head = id.x / {{ width }}u;
  let c = id.x % {{ width }}u;
  let value = arena[{{ x.base }}u + id.y * {{ x.stride }}u + id.x];
  {% for start, size, out in parts %}
  if (c >= {{ start }}u && c < {{ start + size }}u) {
    arena[{{ out.base }}u + id.y * {{ out.stride }}u + head * {{ size }}u + c - {{ start }}u] = value;
  }
  {% endfor %}
}
