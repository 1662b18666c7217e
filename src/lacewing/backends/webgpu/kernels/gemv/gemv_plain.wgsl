// y = x @ W.T for few tokens and weights that are floats: a team of `lanes` threads makes a row for `batch` tokens, each thread with
// every lanes-th eight columns, so that neighbours read neighbouring words of W and of x; `unroll` of them are loaded before the first
// is used. A token's sum does not depend on how many there are. Grid: rows / rows of a workgroup (in x and z), tokens / batch.
{% set words = "vec4<f32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}
{% set lanes = variant.lanes %}
{% set eights = columns // 8 %}
{% set unroll = (4 if batch == 1 else 2) if eights >= 4 * lanes else 1 %}
{% set whole = eights // (unroll * lanes) * unroll * lanes %}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments() }}) {
{{ teams.start() }}
  let row = (group.x + group.z * 65535u) * {{ threads // lanes }}u + team;
  let w = min(row, {{ rows - 1 }}u) * {{ groups * 4 }}u;
  let count = {{ "row_count()" if by_rows else "token_count()" }};
  {% for b in range(batch) %}
  let place_{{ b }} = {{ "group.y" if batch == 1 else "min(group.y * %du + %du, count - 1u)" % (batch, b) }};
  let x_{{ b }} = ({{ x.base }}u + {{ "output_of(first_row() + place_%d)" % b if by_rows else "place_%d" % b }} * {{ x.stride }}u) / 4u;
  var sum_{{ b }} = 0.0;
  {% endfor %}
  {% if whole %}
  for (var c = lane; c < {{ whole }}u; c += {{ unroll * lanes }}u) {
    {% for u in range(unroll) %}
    let c_{{ u }} = c + {{ u * lanes }}u;
    let w_{{ u }} = load_eight(w + c_{{ u }});
    {% for b in range(batch) %}
    let a_{{ u }}_{{ b }} = arena[x_{{ b }} + c_{{ u }} * 2u];
    let b_{{ u }}_{{ b }} = arena[x_{{ b }} + c_{{ u }} * 2u + 1u];
    {% endfor %}
    {% endfor %}
    {% for u in range(unroll) %}
    {% for b in range(batch) %}
    sum_{{ b }} += dot(w_{{ u }}.a, a_{{ u }}_{{ b }}) + dot(w_{{ u }}.b, b_{{ u }}_{{ b }});
    {% endfor %}
    {% endfor %}
  }
  {% endif %}
  {% if whole < eights %}
  for (var c = lane + {{ whole }}u; c < {{ eights }}u; c += {{ lanes }}u) {
    let v = load_eight(w + c);
    {% for b in range(batch) %}
    sum_{{ b }} += dot(v.a, arena[x_{{ b }} + c * 2u]) + dot(v.b, arena[x_{{ b }} + c * 2u + 1u]);
    {% endfor %}
  }
  {% endif %}
  {% if columns % 8 %}
  if (lane == 0u) {  // behind the last column stands what is no part of x
    let v = load_eight(w + {{ eights }}u);
    {% for b in range(batch) %}
    {% for i in range(columns % 8) %}
    sum_{{ b }} += v.{{ "ab"[i // 4] }}[{{ i % 4 }}] * arena[x_{{ b }} + {{ eights * 2 + i // 4 }}u][{{ i % 4 }}];
    {% endfor %}
    {% endfor %}
  }
  {% endif %}
  {% for b in range(batch) %}
  {{ teams.sum("sum_%d" % b) }}
  if (lane == 0u && row < {{ rows }}u{{ " && group.y * %du + %du < count" % (batch, b) if batch > 1 }}) { store_output(place_{{ b }}, row, sum_{{ b }}); }
  {% endfor %}
}
