{# The tile of gemm_units.wgsl for pairs of a token and an expert: places are those of the sorted list, sources are pairs.
   Grid: rows / units.rows, tiles of the list. #}
{% extends "gemm_units.wgsl" %}
{% block outputs %}{% include "expert_gemm.wgsl" %}{% endblock %}

{% block columns %}
fn store_at(place: u32, row: u32, sum: f32) { store_row(shared_tile.expert, pair_at(place), row, sum); }
{% if fours %}
fn store_four(place: u32, row: u32, sums: vec4<f32>) {
  let pair = pair_at(place);
  let t = pair / {{ active }}u;
  let expert = shared_tile.expert;
  let y = sums{% if factor %} * bitcast<f32>(word({{ factor.base }}u + t * {{ factor.stride }}u + pair % {{ active }}u)){% endif %};
  {% if biased %}
  let at = expert * {{ rows * parts }}u + row;
  let whole = y + vec4<f32>(bias[at], bias[at + 1u], bias[at + 2u], bias[at + 3u]);
  {% else %}
  let whole = y;
  {% endif %}
  let column = pair % {{ active }}u * {{ rows }}u + row % {{ rows }}u;
  {% for out in outs %}
  {{ "else " if not loop.first }}if (row < {{ loop.index * rows }}u) { put_four({{ out.base }}u + t * {{ out.stride }}u + column, whole); }
  {% endfor %}
}
{% endif %}
fn source_of(place: u32) -> u32 { return pair_at(place); }
fn columns_of(pair: u32) -> u32 {
  let token = pair / {{ active }}u;
  return ({{ halves.values.base }}u + token * {{ halves.values.stride }}u) / 4u{{ " + pair %% %du * %du" % (active, part // 8) if part }};
}
fn scale_of(pair: u32) -> f32 { return bitcast<f32>(word({{ halves.scales.base }}u + pair / {{ active }}u * {{ halves.scales.stride }}u)); }
{% endblock %}

{% block busy %}
    if (my_tokens < count - token_start)  // of an expert's last tile some subgroups have no pairs
{% endblock %}

{% block tile %}
  let row_start = group.x * {{ units.rows }}u;
  let tile_of = tile_at(group.y, index);
  let inside = tile_of.expert - {{ first_expert }}u;  // of this shard; wraps round for those before it
  if (inside >= {{ experts }}u) { return; }
  let token_start = tile_of.start;
  let count = tile_of.start + tile_of.count;
  let first_group = inside * {{ all_rows * groups }}u;
{% endblock %}
