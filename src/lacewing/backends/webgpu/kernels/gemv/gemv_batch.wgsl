// As gemv_dot.wgsl for few tokens: a team makes `each` rows for `batch` tokens, so that each thread uses the weights and activations
// that it has loaded several times. A token's sums do not depend on how many there are.
// Grid: tokens / batch, and behind them rows / rows of a workgroup (in x and z), so that neighbours read the same weights.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}
{% import "team.wgsl" as teams with context %}
{% set width = teams.width(each * batch) | int %}
{{ teams.declarations(width) }}
{% include "dot.wgsl" %}
{% set team_count = threads // variant.lanes %}
{% set made = team_count // row_teams * each %}
{% if row_teams > 1 %}
var<workgroup> team_sums: array<f32, {{ team_count * each * batch }}>;  // (row, token, team)
{% endif %}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments() }}) {
{{ teams.start() }}
  let count = {{ "row_count()" if by_rows else "token_count()" }};
  let batches = (count + {{ batch - 1 }}u) / {{ batch }}u;
  let flat = group.x + group.z * 65535u;
  let first_token = (flat % batches) * {{ batch }}u;
  let first_row_of_all = flat / batches * {{ made }}u;
  if (first_row_of_all >= {{ rows }}u) { return; }
  let row = first_row_of_all + team / {{ row_teams }}u * {{ each }}u;
  {% for b in range(batch) %}
  let place_{{ b }} = min(first_token + {{ b }}u, count - 1u);
  let t_{{ b }} = {{ "output_of(first_row() + place_%d)" % b if by_rows else "place_%d" % b }};
  let x_values_{{ b }} = ({{ x.values.base }}u + t_{{ b }} * {{ x.values.stride }}u) / 4u;
  let x_scales_{{ b }} = ({{ x.scales.base }}u + t_{{ b }} * {{ x.scales.stride }}u) / 4u;
  {% endfor %}
  {% set sums = [] %}
  {% for r in range(each) %}
  let first_group_{{ r }} = min(row + {{ r }}u, {{ rows - 1 }}u) * {{ groups }}u;
  {% for b in range(batch) %}
  var sum_{{ r }}_{{ b }} = 0.0;
  {{- sums.append("sum_%d_%d" % (r, b)) or "" }}
  {% endfor %}
  {% endfor %}
  for (var g = lane + (team % {{ row_teams }}u) * {{ variant.lanes }}u; g < {{ groups }}u; g += {{ row_teams * variant.lanes }}u) {
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
  {% set threads_a_sum = variant.lanes // width %}
  {% for chunk in sums | batch(width) %}
  {{ teams.sum_many(chunk) }}
  if (lane % {{ threads_a_sum }}u == 0u) {
    let which = {{ loop.index0 * width }}u + lane / {{ threads_a_sum }}u;  // row * batch + token
    {% if row_teams > 1 %}
    team_sums[which * {{ team_count }}u + team] = {{ chunk[0] }};
    {% else %}
    let token = first_token + which % {{ batch }}u;
    let made_row = row + which / {{ batch }}u;
    if (made_row < {{ rows }}u && token < count) { store_output(token, made_row, {{ chunk[0] }}); }
    {% endif %}
  }
  {% endfor %}
  {% if row_teams > 1 %}
  workgroupBarrier();
  for (var i = team * {{ variant.lanes }}u + lane; i < {{ made * batch }}u; i += {{ threads }}u) {
    let token = first_token + i % {{ batch }}u;
    let made_row = i / {{ batch }}u;
    let at = (made_row % {{ each }}u * {{ batch }}u + i % {{ batch }}u) * {{ team_count }}u + made_row / {{ each }}u * {{ row_teams }}u;
    var sum = team_sums[at];
    {% for i in range(1, row_teams) %}
    sum += team_sums[at + {{ i }}u];
    {% endfor %}
    if (first_row_of_all + made_row < {{ rows }}u && token < count) { store_output(token, first_row_of_all + made_row, sum); }
  }
  {% endif %}
}
