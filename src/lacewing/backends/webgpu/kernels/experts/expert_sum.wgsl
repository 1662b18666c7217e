// Few tokens: the weighted sum of what all active experts make of their parts, `lanes` threads a row, each
// with `unrolled` groups at a time. Grid: rows / teams, tokens.
{% include "experts.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}
{% set team_count = threads // variant.lanes %}
{% set total = active * groups %}
{% set stride = variant.lanes * unrolled %}

var<workgroup> rows_of: array<u32, {{ active }}>;   // where the rows of an active expert begin
var<workgroup> shares: array<f32, {{ active }}>;

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments(true) }}) {
{{ teams.start() }}
  let t = group.y;
  for (var a = index; a < {{ active }}u; a += {{ threads }}u) {
    rows_of[a] = expert_of(t, a) * {{ rows }}u;
    shares[a] = {{ "bitcast<f32>(word(%du + t * %du + a))" % (weights.base, weights.stride) if weights else "1.0" }};
  }
  workgroupBarrier();
  let row = min(group.x * {{ team_count }}u + team, {{ rows - 1 }}u);
  var sum = 0.0;
  for (var start = lane; start < {{ total }}u; start += {{ stride }}u) {
    {% for u in range(unrolled) %}
    {
      {% if total % stride %}
      let i = min(start + {{ u * variant.lanes }}u, {{ total - 1 }}u);
      {% else %}
      let i = start + {{ u * variant.lanes }}u;
      {% endif %}
      let a = i / {{ groups }}u;
      let g = i % {{ groups }}u;
      let y = shares[a] * times((rows_of[a] + row) * {{ groups }}u + g, load_input(t, a, g));
      {% if total % stride %}
      sum += select(0.0, y, start + {{ u * variant.lanes }}u < {{ total }}u);
      {% else %}
      sum += y;
      {% endif %}
    }
    {% endfor %}
  }
  {{ teams.sum("sum") }}
  if (lane == 0u && group.x * {{ team_count }}u + team < {{ rows }}u) {
    {% if biased %}
    for (var a = 0u; a < {{ active }}u; a++) { sum += shares[a] * bias[rows_of[a] + row]; }
    {% endif %}
    {% if add %}
    sum += bitcast<f32>(word({{ add.base }}u + t * {{ add.stride }}u + row));
    {% endif %}
    put_word({{ out.base }}u + t * {{ out.stride }}u + row, bitcast<u32>(sum));
  }
}
