// y = x @ W.T for few tokens and weights that are floats: a team of `lanes` threads makes a row, each thread with every lanes-th
// eight columns, so that neighbours read neighbouring words of W and of x; `unroll` of them are loaded before the first is used.
// Grid: rows / rows of a workgroup (in x and z), tokens.
{% set words = "vec4<f32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}
{% set lanes = variant.lanes %}
{% set eights = columns // 8 %}
{% set unroll = 4 if eights >= 4 * lanes else 1 %}
{% set whole = eights // (unroll * lanes) * unroll * lanes %}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments() }}) {
{{ teams.start() }}
  let row = (group.x + group.z * 65535u) * {{ threads // lanes }}u + team;
  let t = {{ "output_of(first_row() + group.y)" if by_rows else "group.y" }};
  let w = min(row, {{ rows - 1 }}u) * {{ groups * 4 }}u;
  let x = ({{ x.base }}u + t * {{ x.stride }}u) / 4u;
  var sum = 0.0;
  {% if whole %}
  for (var c = lane; c < {{ whole }}u; c += {{ unroll * lanes }}u) {
    {% for u in range(unroll) %}
    let c_{{ u }} = c + {{ u * lanes }}u;
    let w_{{ u }} = load_eight(w + c_{{ u }});
    let a_{{ u }} = arena[x + c_{{ u }} * 2u];
    let b_{{ u }} = arena[x + c_{{ u }} * 2u + 1u];
    {% endfor %}
    {% for u in range(unroll) %}
    sum += dot(w_{{ u }}.a, a_{{ u }}) + dot(w_{{ u }}.b, b_{{ u }});
    {% endfor %}
  }
  {% endif %}
  {% if whole < eights %}
  for (var c = lane + {{ whole }}u; c < {{ eights }}u; c += {{ lanes }}u) {
    let v = load_eight(w + c);
    sum += dot(v.a, arena[x + c * 2u]) + dot(v.b, arena[x + c * 2u + 1u]);
  }
  {% endif %}
  {% if columns % 8 %}
  if (lane == 0u) {  // behind the last column stands what is no part of x
    let v = load_eight(w + {{ eights }}u);
    {% for i in range(columns % 8) %}
    sum += v.{{ "ab"[i // 4] }}[{{ i % 4 }}] * arena[x + {{ eights * 2 + i // 4 }}u][{{ i % 4 }}];
    {% endfor %}
  }
  {% endif %}
  {{ teams.sum("sum") }}
  if (lane == 0u && row < {{ rows }}u) { store_output(group.y, row, sum); }
}
