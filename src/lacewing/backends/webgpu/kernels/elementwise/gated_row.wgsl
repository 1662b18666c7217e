// As gated, of a whole row, and its float16 form (halved.wgsl) alone; a thread keeps `parts` vectors of four in registers.
// Grid: 1, tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% include "activations.wgsl" %}
{% include "halved.wgsl" %}

{% include "gated_four.wgsl" %}

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let t = group.y;
  {% for part in range(parts) %}
  let c_{{ part }} = index + {{ part * threads }}u;
  var v_{{ part }} = vec4<f32>(0.0);
  if (c_{{ part }} < {{ width // 4 }}u) { v_{{ part }} = gated_four(t, c_{{ part }}); }
  {% endfor %}
  {% include "halved_row.wgsl" %}
}
