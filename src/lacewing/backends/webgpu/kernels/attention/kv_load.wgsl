{# Eight stored values at a time; the kernel binds the buffer as `stored: array<vec4<u32>>`. #}
struct Eight {
  a: vec4<f32>,
  b: vec4<f32>,
}

{% if kv.half %}
fn halves(q: vec4<u32>) -> Eight {
  return Eight(vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y)), vec4<f32>(unpack2x16float(q.z), unpack2x16float(q.w)));
}
{% endif %}

// `word`: of the row; `chunk`: which eight of its values
fn eight(word: u32, chunk: u32) -> Eight {
  {% if kv.half %}
  return halves(stored[(word >> 2u) + chunk]);
  {% else %}
  let at = (word >> 2u) + (chunk * 2u);
  return Eight(bitcast<vec4<f32>>(stored[at]), bitcast<vec4<f32>>(stored[at + 1u]));
  {% endif %}
}
