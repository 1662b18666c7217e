// Rows of the table: one thread a group of 32 values. An id beyond the table, as one below 0 is here, has its row already.
// Grid: groups / 64, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let token = token_of(id.y);
  if (id.x >= {{ groups }}u || token < {{ first_row }}u || token >= {{ first_row + rows }}u) { return; }
  let values = load_floats((token - {{ first_row }}u) * {{ groups }}u + id.x);
  let at = {{ out.base }}u + id.y * {{ out.stride }}u + id.x * 32u;
  for (var i = 0u; i < 8u; i++) {
    for (var j = 0u; j < 4u; j++) {
      {% if columns % 32 %}
      if (id.x * 32u + i * 4u + j >= {{ columns }}u) { return; }
      {% endif %}
      arena[at + i * 4u + j] = values[i][j] * {{ number(scale) }};
    }
  }
}
