// y = x @ W.T for few tokens, activations as bytes: `row_teams` teams of `lanes` threads make a row, each thread with every
// so-many-th group of 32; `unroll` groups are loaded before the first is used.
// Grid: rows / rows of a workgroup (in x and z), tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}
{% include "dot.wgsl" %}
{% set step_groups = row_teams * variant.lanes %}
{% set stride = unroll * step_groups %}
{% set team_count = threads // variant.lanes %}
{% if row_teams > 1 %}
var<workgroup> team_sums: array<f32, {{ team_count }}>;
{% endif %}

{% macro part(count, at) %}
    {% for u in range(count) %}
    let g_{{ u }} = {{ at }} + {{ u * step_groups }}u;
    let w_{{ u }} = load_group(first_group + g_{{ u }});
    let xa_{{ u }} = arena[x_values + g_{{ u }} * 2u];
    let xb_{{ u }} = arena[x_values + g_{{ u }} * 2u + 1u];
    let f_{{ u }} = arena[x_scales + (g_{{ u }} >> 1u)];
    {% endfor %}
    {% for u in range(count) %}
    sum += dot_group(w_{{ u }}, xa_{{ u }}, xb_{{ u }}, select(f_{{ u }}.xy, f_{{ u }}.zw, (g_{{ u }} & 1u) != 0u));
    {% endfor %}
{% endmacro %}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments() }}) {
{{ teams.start() }}
  let row = (group.x + group.z * 65535u) * {{ team_count // row_teams }}u + team / {{ row_teams }}u;
  let t = {{ "output_of(first_row() + group.y)" if by_rows else "group.y" }};
  let x_values = ({{ x.values.base }}u + t * {{ x.values.stride }}u) / 4u;
  let x_scales = ({{ x.scales.base }}u + t * {{ x.scales.stride }}u) / 4u;
  let first_group = min(row, {{ rows - 1 }}u) * {{ groups }}u;
  let start = lane + (team % {{ row_teams }}u) * {{ variant.lanes }}u;
  var sum = 0.0;
  {% if groups >= stride %}
  for (var g = start; g < {{ groups // stride * stride }}u; g += {{ stride }}u) {
{{ part(unroll, "g") }}
  }
  {% endif %}
  {% if groups % stride %}
  for (var g = start + {{ groups // stride * stride }}u; g < {{ groups }}u; g += {{ step_groups }}u) {
{{ part(1, "g") }}
  }
  {% endif %}
  {{ teams.sum("sum") }}
  {% if row_teams > 1 %}
  if (lane == 0u) { team_sums[team] = sum; }
  workgroupBarrier();
  {% for i in range(1, row_teams) %}
  sum += team_sums[min(team + {{ i }}u, {{ team_count - 1 }}u)];
  {% endfor %}
  {% endif %}
  if (lane == 0u && team % {{ row_teams }}u == 0u && row < {{ rows }}u) { store_output(group.y, row, sum); }
}
