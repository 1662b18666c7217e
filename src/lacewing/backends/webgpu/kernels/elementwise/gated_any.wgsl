// out = activation(gate) * up, both within a limit if there is one, or without an up, at any place and of any width, each `part` columns with one gate; a thread a value.
// Grid: width / 64, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}
{% include "activations.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ width }}u) { return; }
  let gate = arena[{{ gate.base }}u + id.y * {{ gate.stride }}u + id.x{{ " / %du" % part if part > 1 }}];
  {% if up %}
  let up = arena[{{ up.base }}u + id.y * {{ up.stride }}u + id.x];
  {% endif %}
  {% if limit %}
  let value = limited({{ activation }}(gate), up, {{ number(limit) }});
  {% else %}
  let value = {{ activation }}(gate){{ " * up" if up }};
  {% endif %}
  arena[{{ out.base }}u + id.y * {{ out.stride }}u + id.x] = value;
}
