{# Four values of activation(gate) * up, `c` times four columns behind the first; both within a limit if there is one, or without an
   up. #}
fn gated_four(t: u32, c: u32) -> vec4<f32> {
  let gate = bitcast<vec4<f32>>(arena[({{ gate.base }}u + t * {{ gate.stride }}u) / 4u + c]);
  {% if up %}
  let up = bitcast<vec4<f32>>(arena[({{ up.base }}u + t * {{ up.stride }}u) / 4u + c]);
  {% endif %}
  {% if limit %}
  return vec4<f32>(
    {% for c in "xyzw" %}
    limited({{ activation }}(gate.{{ c }}), up.{{ c }}, {{ number(limit) }}),
    {% endfor %}
  );
  {% else %}
  return vec4<f32>({{ activation }}(gate.x), {{ activation }}(gate.y), {{ activation }}(gate.z), {{ activation }}(gate.w)){{ " * up" if up }};
  {% endif %}
}
