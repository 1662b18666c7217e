{# The tile of gemm_units.wgsl of a part of the columns: few tiles would leave most of a GPU idle. gemm_units_sum.wgsl adds the parts.
   Grid: tokens / units.tokens, rows / units.rows, parts. #}
{% extends "gemm_units.wgsl" %}
{% block outputs %}
{% set split_binding = first + layout.planes | length %}
{% include "split.wgsl" %}
var<private> my_part: u32;
{% endblock %}

{% block stores %}
fn store_four(place: u32, row: u32, sums: vec4<f32>) {
  parts[part_at(my_part, blocks_of({{ "row_count()" if by_rows else "token_count()" }}), place, row)] = sums;
}
{% endblock %}
{% block fours %}{% endblock %}

{% block tile %}
{{ super() }}
  let share = ({{ steps - 1 }}u + parts_of(blocks_of(count))) / parts_of(blocks_of(count)) * {{ step_groups }}u;
  let begin = group.z * share;
  let end = min(begin + share, {{ groups }}u);
  my_part = group.z;
{% endblock %}
