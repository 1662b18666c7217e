{# The tile of gemm_dot.wgsl for pairs of a token and an expert. Grid: rows / tile_rows, tiles of the list. #}
{% extends "gemm_dot.wgsl" %}
{% block outputs %}{% include "expert_gemm.wgsl" %}{% endblock %}

{% block columns %}
// t: the pair
fn load_columns(t: u32, g: u32) -> Columns {
  let token = t / {{ active }}u;
  let column = {{ "(t %% %du) * %du + g" % (active, part // 32) if part else "g" }};
  let at = ({{ x.values.base }}u + token * {{ x.values.stride }}u) / 4u + column * 2u;
  let fact = {{ x.scales.base }}u + token * {{ x.scales.stride }}u + column * 2u;
  let q8_scales = arena[fact >> 2u];
  return Columns(arena[at], arena[at + 1u], select(q8_scales.xy, q8_scales.zw, (fact & 2u) != 0u));
}
{% endblock %}

{% block tile %}
  let row_start = group.x * {{ tile_rows }}u;
  let tile = tile_at(group.y, index);
  let inside = tile.expert - {{ first_expert }}u;  // of this shard; wraps round for those before it
  if (inside >= {{ experts }}u) { return; }
{% endblock %}

{% block sources %}
  let row = (inside * {{ rows * parts }}u + min(row_start + index, {{ rows * parts - 1 }}u)) * {{ groups }}u;
  let t = pair_at(tile.start + min(load_token, tile.count - 1u));
{% endblock %}

{% block results %}
  {% for j in range(token_parts) %}
  if (n + {{ j * 16 }}u < tile.count) {
    let pair = pair_at(tile.start + n + {{ j * 16 }}u);
    {% for i in range(row_parts) %}
    if (row_start + m + {{ i * 16 }}u < {{ rows * parts }}u) {
      store_row(tile.expert, pair, row_start + m + {{ i * 16 }}u, y_{{ i }}_{{ j }});
    }
    {% endfor %}
  }
  {% endfor %}
{% endblock %}
