// y = x @ W.T for few tokens, activations as bytes: `row_teams` teams of `lanes` threads make `each` rows for `batch` tokens, each
// thread with every so-many-th group of 32. A token's sums are added in the same order whatever `each` and `batch` are.
// Grid: rows / rows of a workgroup (in x and z), tokens / batch.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}
{% include "dot.wgsl" %}
{% set step_groups = row_teams * variant.lanes %}
{% set team_count = threads // variant.lanes %}
{% if row_teams > 1 %}
var<workgroup> team_sums: array<f32, {{ team_count * each * batch }}>;  // (row, token, team)
{% endif %}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments() }}) {
{{ teams.start() }}
  let row = ((group.x + group.z * 65535u) * {{ team_count // row_teams }}u + team / {{ row_teams }}u) * {{ each }}u;
  let count = {{ "row_count()" if by_rows else "token_count()" }};
  {% for b in range(batch) %}
  let place_{{ b }} = {{ "group.y" if batch == 1 else "min(group.y * %du + %du, count - 1u)" % (batch, b) }};
  let t_{{ b }} = {{ "output_of(first_row() + place_%d)" % b if by_rows else "place_%d" % b }};
  let x_values_{{ b }} = ({{ x.values.base }}u + t_{{ b }} * {{ x.values.stride }}u) / 4u;
  let x_scales_{{ b }} = ({{ x.scales.base }}u + t_{{ b }} * {{ x.scales.stride }}u) / 4u;
  {% endfor %}
  {% for r in range(each) %}
  let first_group_{{ r }} = min(row + {{ r }}u, {{ rows - 1 }}u) * {{ groups }}u;
  {% for b in range(batch) %}
  var sum_{{ r }}_{{ b }} = 0.0;
  {% endfor %}
  {% endfor %}
  for (var g = lane + (team % {{ row_teams }}u) * {{ variant.lanes }}u; g < {{ groups }}u; g += {{ step_groups }}u) {
    {% for r in range(each) %}
    let w_{{ r }} = load_group(first_group_{{ r }} + g);
    {% endfor %}
    {% for b in range(batch) %}
    {
      let xa = arena[x_values_{{ b }} + g * 2u];
      let xb = arena[x_values_{{ b }} + g * 2u + 1u];
      let f = arena[x_scales_{{ b }} + (g >> 1u)];
      let q8_scales = select(f.xy, f.zw, (g & 1u) != 0u);
      {% for r in range(each) %}
      sum_{{ r }}_{{ b }} += dot_group(w_{{ r }}, xa, xb, q8_scales);
      {% endfor %}
    }
    {% endfor %}
  }
  {% for r in range(each) %}
  {% for b in range(batch) %}
  {{ teams.sum("sum_%d_%d" % (r, b)) }}
  if (lane == 0u) {
    {% if row_teams > 1 %}
    team_sums[{{ (r * batch + b) * team_count }}u + team] = sum_{{ r }}_{{ b }};
    {% else %}
    if (row + {{ r }}u < {{ rows }}u && {{ "true" if batch == 1 else "group.y * %du + %du < count" % (batch, b) }}) { store_output(place_{{ b }}, row + {{ r }}u, sum_{{ r }}_{{ b }}); }
    {% endif %}
  }
  {% endfor %}
  {% endfor %}
  {% if row_teams > 1 and batch * each == 1 %}
  workgroupBarrier();
  {% for i in range(1, row_teams) %}
  sum_0_0 += team_sums[min(team + {{ i }}u, {{ team_count - 1 }}u)];
  {% endfor %}
  if (lane == 0u && team % {{ row_teams }}u == 0u && row < {{ rows }}u) { store_output(place_0, row, sum_0_0); }
  {% elif row_teams > 1 %}
  workgroupBarrier();
  let first_row_of_all = (group.x + group.z * 65535u) * {{ team_count // row_teams * each }}u;
  for (var made = team * {{ variant.lanes }}u + lane; made < {{ team_count // row_teams * each * batch }}u; made += {{ threads }}u) {
    let token = group.y * {{ batch }}u + made % {{ batch }}u;
    let made_row = made / {{ batch }}u;
    let at = ((made_row % {{ each }}u) * {{ batch }}u + made % {{ batch }}u) * {{ team_count }}u + made_row / {{ each }}u * {{ row_teams }}u;
    var sum = team_sums[at];
    {% for i in range(1, row_teams) %}
    sum += team_sums[at + {{ i }}u];
    {% endfor %}
    if (first_row_of_all + made_row < {{ rows }}u && token < count) { store_output(token, first_row_of_all + made_row, sum); }
  }
  {% endif %}
}
