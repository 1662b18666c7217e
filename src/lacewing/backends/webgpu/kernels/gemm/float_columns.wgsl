{# Four of a token's activations, zeros behind the last. #}
fn columns_at(t: u32, column: u32) -> vec4<f32> {
  let at = {{ x.base }}u + t * {{ x.stride }}u + column;
  {% if columns % 32 or x.base % 4 %}
  var four = vec4<f32>(0.0);
  for (var i = 0u; i < 4u; i++) {
    if (column + i < {{ columns }}u) { four[i] = arena[(at + i) >> 2u][(at + i) & 3u]; }
  }
  return four;
  {% else %}
  return arena[at >> 2u];
  {% endif %}
}
