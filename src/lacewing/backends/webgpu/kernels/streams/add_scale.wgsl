// out = (x + add) * factor * weight; add and weight are repeated along x. Grid: width / 64, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}
{% if weighted %}
@group(0) @binding(2) var<storage, read> weight: array<f32>;
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ width }}u) { return; }
  var v = arena[{{ x.base }}u + id.y * {{ x.stride }}u + id.x];
  {% if add %}
  v += arena[{{ add.base }}u + id.y * {{ add.stride }}u + id.x % {{ period }}u];
  {% endif %}
  {% if factor != 1 %}
  v *= {{ number(factor) }};
  {% endif %}
  {% if weighted %}
  v *= weight[{{ "id.x %% %du" % period if weighted > 1 else "0u" }}];
  {% endif %}
  arena[{{ out.base }}u + id.y * {{ out.stride }}u + id.x] = v;
}
