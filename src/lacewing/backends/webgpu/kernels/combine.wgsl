// out = the weighted sum of the parts of x, in the order of the active experts, + add. Grid: width / 64, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ width }}u) { return; }
  var sum = 0.0;
  for (var a = 0u; a < {{ active }}u; a++) {
    let y = arena[{{ x.base }}u + id.y * {{ x.stride }}u + a * {{ width }}u + id.x];
    sum += {{ "y * arena[%du + id.y * %du + a]" % (weights.base, weights.stride) if weights else "y" }};
  }
  {% if add %}
  sum += arena[{{ add.base }}u + id.y * {{ add.stride }}u + id.x];
  {% endif %}
  arena[{{ out.base }}u + id.y * {{ out.stride }}u + id.x] = sum;
}
