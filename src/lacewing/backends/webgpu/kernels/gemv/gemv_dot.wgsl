// y = x @ W.T for one token at a time, activations as bytes: `row_teams` teams of `lanes` threads make a row, each thread with every
// so-many-th group of 32. Grid: rows / rows of a workgroup (in x and z), tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}
{% include "dot.wgsl" %}
{% set team_count = threads // variant.lanes %}
{% if row_teams > 1 %}
var<workgroup> team_sums: array<f32, {{ team_count }}>;
{% endif %}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments() }}) {
{{ teams.start() }}
  let row = (group.x + group.z * 65535u) * {{ team_count // row_teams }}u + team / {{ row_teams }}u;
  let t = {{ "output_of(first_row() + group.y)" if by_rows else "group.y" }};
  let x_values = ({{ x.values.base }}u + t * {{ x.values.stride }}u) / 4u;
  let x_scales = ({{ x.scales.base }}u + t * {{ x.scales.stride }}u) / 4u;
  let first_group = min(row, {{ rows - 1 }}u) * {{ groups }}u;
  var sum = 0.0;
  for (var g = lane + (team % {{ row_teams }}u) * {{ variant.lanes }}u; g < {{ groups }}u; g += {{ row_teams * variant.lanes }}u) {
    let f = arena[x_scales + (g >> 1u)];
    sum += dot_group(load_group(first_group + g), arena[x_values + g * 2u], arena[x_values + g * 2u + 1u], select(f.xy, f.zw, (g & 1u) != 0u));
  }
  {{ teams.sum_one("sum") }}
  {% if row_teams > 1 %}
  if (lane == 0u) { team_sums[team] = sum; }
  workgroupBarrier();
  {% for i in range(1, row_teams) %}
  sum += team_sums[min(team + {{ i }}u, {{ team_count - 1 }}u)];
  {% endfor %}
  {% endif %}
  if (lane == 0u && team % {{ row_teams }}u == 0u && row < {{ rows }}u) { store_output(group.y, row, sum); }
}
