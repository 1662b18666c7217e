// out = the weighted sum of the parts of x, in the order of the active experts, + add; with `ids`, without those whose id is -1.
// Grid: width / 64, tokens.
{% set words = "u32" if ids else "f32" %}
{% include "step.wgsl" %}

fn value(at: u32) -> f32 { return {{ "bitcast<f32>(arena[at])" if ids else "arena[at]" }}; }

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ width }}u) { return; }
  var sum = 0.0;
  for (var a = 0u; a < {{ active }}u; a++) {
    {% if ids %}
    if (arena[{{ ids.base }}u + id.y * {{ ids.stride }}u + a] == 0xFFFFFFFFu) { continue; }
    {% endif %}
    let y = value({{ x.base }}u + id.y * {{ x.stride }}u + a * {{ width }}u + id.x);
    sum += {{ "y * value(%du + id.y * %du + a)" % (weights.base, weights.stride) if weights else "y" }};
  }
  {% if add %}
  sum += value({{ add.base }}u + id.y * {{ add.stride }}u + id.x);
  {% endif %}
  arena[{{ out.base }}u + id.y * {{ out.stride }}u + id.x] = {{ "bitcast<u32>(sum)" if ids else "sum" }};
}
