{# The tile of gemm_float.wgsl for pairs of a token and an expert. Grid: rows / 64, tiles of the list. #}
{% extends "gemm_float.wgsl" %}
{% block outputs %}{% include "expert_gemm.wgsl" %}{% endblock %}

{% block columns %}
// t: the pair
fn columns_at(t: u32, column: u32) -> vec4<f32> {
  let at = {{ x.base }}u + (t / {{ active }}u) * {{ x.stride }}u + {{ "(t %% %du) * %du + column" % (active, part) if part else "column" }};
  {% if columns % 32 or x.base % 4 or part % 4 %}
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
  let tile = tile_at(group.y, index);
  let inside = tile.expert - {{ first_expert }}u;  // of this shard; wraps round for those before it
  if (inside >= {{ experts }}u) { return; }
{% endblock %}

{% block sources %}
  let row = (inside * {{ rows * parts }}u + min(row_start + index % 64u, {{ rows * parts - 1 }}u)) * {{ groups }}u;
  let t = pair_at(tile.start + min(index % 64u, tile.count - 1u));
{% endblock %}

{% block results %}
  {% for j in range(4) %}
  if (n + {{ j * 16 }}u < tile.count) {
    let pair = pair_at(tile.start + n + {{ j * 16 }}u);
    {% for r in range(4) %}
    if (row_start + m + {{ r * 16 }}u < {{ rows * parts }}u) {
      store_row(tile.expert, pair, row_start + m + {{ r * 16 }}u, y[{{ r }}][{{ j }}]);
    }
    {% endfor %}
  }
  {% endfor %}
{% endblock %}
