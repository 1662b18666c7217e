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
  var size = 0u;
  {% for part in range(parts) %}
  let c_{{ part }} = index + {{ part * threads }}u;
  var v_{{ part }} = vec4<f32>(0.0);
  if (c_{{ part }} < {{ width // 4 }}u) { v_{{ part }} = gated_four(t, c_{{ part }}); }
  size = max(size, size_of(v_{{ part }}));
  {% endfor %}
  let exponent = row_exponent(index, size);
  let inverse = inverse_of(exponent);
  {% for part in range(parts) %}
  if (c_{{ part }} < {{ halves.words // 2 }}u) { keep_halves(t, c_{{ part }}, v_{{ part }} * inverse); }
  {% endfor %}
  if (index == 0u) { keep_scale(t, exponent); }
}
