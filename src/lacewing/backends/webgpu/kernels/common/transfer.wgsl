// Values of a view into or out of the buffer for the host; they may be integers. Grid: width / 64, tokens.
{% set words = "u32" %}
{% include "step.wgsl" %}
@group(0) @binding(2) var<storage, {{ "read" if way == "in" else "read_write" }}> transferred: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ width }}u) { return; }
  let inside = {{ place.base }}u + id.y * {{ place.stride }}u + id.x;
  let outside = token_count() * {{ before }}u + id.y * {{ width }}u + id.x;
  {% if way == "in" %}
  arena[inside] = transferred[outside];
  {% else %}
  transferred[outside] = arena[inside];
  {% endif %}
}
