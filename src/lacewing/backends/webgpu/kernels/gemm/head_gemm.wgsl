{# As `gemm_float`, with a matrix for each head. Grid: rows of a head / 64, tokens / 64, heads. #}
{% extends "gemm_float.wgsl" %}
{% block outputs %}
var<private> head: u32;
{% endblock %}

{% block columns %}
fn columns_at(t: u32, column: u32) -> vec4<f32> {
  let at = {{ x.base }}u + (t * {{ x.stride }}u) + (head * {{ columns + rest }}u) + column;
  {% if columns % 32 or (columns + rest) % 4 or x.base % 4 %}
  var four = vec4<f32>(0.0);
  for (var i = 0u; i < 4u; i++) {
    if (column + i < {{ columns }}u) { four[i] = arena[(at + i) >> 2u][(at + i) & 3u]; }
  }
  return four;
  {% else %}
  return arena[at >> 2u];
  {% endif %}
}
{% endblock %}

{% block tile %}
  let row_start = group.x * 64u;
  let token_start = group.y * 64u;
  head = group.z;
{% endblock %}

{% block sources %}
  let row = ((head * {{ outputs }}u) + min(row_start + (index % 64u), {{ outputs - 1 }}u)) * {{ groups }}u;
  let t = min(token_start + (index % 64u), token_count() - 1u);
{% endblock %}

{% block results %}
  {% for j in range(4) %}
  if (token_start + n + {{ j * 16 }}u < token_count()) {
    let to = {{ out.base }}u + ((token_start + n + {{ j * 16 }}u) * {{ out.stride }}u) + (head * {{ outputs + rest }}u) + row_start + m;
    {% for r in range(4) %}
    if (row_start + m + {{ r * 16 }}u < {{ outputs }}u) { arena[(to + {{ r * 16 }}u) >> 2u][(to + {{ r * 16 }}u) & 3u] = y[{{ r }}][{{ j }}]; }
    {% endfor %}
  }
  {% endfor %}
{% endblock %}
