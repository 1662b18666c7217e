// out = activation(gate) * up, both within a limit if there is one, or without an up, with the row's bytes where wanted; a thread four values. Grid: width / 256, tokens.
{% set words = "vec4<u32>" %}
{% set threads = 64 %}
{% include "step.wgsl" %}
{% include "activations.wgsl" %}
{% if q8 %}
{% include "neighbours.wgsl" %}
{% endif %}

@compute @workgroup_size({{ threads }})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let t = id.y;
  let there = id.x < {{ width // 4 }}u;
  let c = min(id.x, {{ width // 4 - 1 }}u);
  let gate = bitcast<vec4<f32>>(arena[({{ gate.base }}u + t * {{ gate.stride }}u) / 4u + c]);
  {% if up %}
  let up = bitcast<vec4<f32>>(arena[({{ up.base }}u + t * {{ up.stride }}u) / 4u + c]);
  {% endif %}
  {% if limit %}
  let value = vec4<f32>(
    {% for c in "xyzw" %}
    limited({{ activation }}(gate.{{ c }}), up.{{ c }}, {{ number(limit) }}),
    {% endfor %}
  );
  {% else %}
  let value = vec4<f32>({{ activation }}(gate.x), {{ activation }}(gate.y), {{ activation }}(gate.z), {{ activation }}(gate.w)){{ " * up" if up }};
  {% endif %}
  if (there) { arena[({{ out.base }}u + t * {{ out.stride }}u) / 4u + c] = bitcast<vec4<u32>>(value); }
  {% if q8 %}
  store_four(index, t, id.x, value, there);
  {% endif %}
}
