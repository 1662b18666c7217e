// y = x @ W.T for few tokens, activations as bytes: a team of `lanes` threads makes `team_rows` rows, each thread with every
// lanes-th group of 32; `unroll` groups are loaded before the first is used.
// Grid: rows / rows of a workgroup (in x and z), tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}
{% include "dot.wgsl" %}
{% set stride = unroll * variant.lanes %}

{% macro part(count, at) %}
    {% for u in range(count) %}
    let g_{{ u }} = {{ at }} + {{ u * variant.lanes }}u;
    {% for r in range(team_rows) %}
    let w_{{ u }}_{{ r }} = load_group(first_group_{{ r }} + g_{{ u }});
    {% endfor %}
    let xa_{{ u }} = arena[x_codes + g_{{ u }} * 2u];
    let xb_{{ u }} = arena[x_codes + g_{{ u }} * 2u + 1u];
    let f_{{ u }} = arena[x_facts + (g_{{ u }} >> 1u)];
    {% endfor %}
    {% for u in range(count) %}
    let facts_{{ u }} = select(f_{{ u }}.xy, f_{{ u }}.zw, (g_{{ u }} & 1u) != 0u);
    {% for r in range(team_rows) %}
    sum_{{ r }} += dot_group(w_{{ u }}_{{ r }}, xa_{{ u }}, xb_{{ u }}, facts_{{ u }});
    {% endfor %}
    {% endfor %}
{% endmacro %}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments() }}) {
{{ teams.start() }}  let start = ((group.x + group.z * 65535u) * {{ threads // variant.lanes }}u + team) * {{ team_rows }}u;
  let t = {{ "output_of(first_row() + group.y)" if by_rows else "group.y" }};
  let x_codes = ({{ x.codes.base }}u + t * {{ x.codes.stride }}u) / 4u;
  let x_facts = ({{ x.facts.base }}u + t * {{ x.facts.stride }}u) / 4u;
  {% for r in range(team_rows) %}
  let row_{{ r }} = start + {{ r }}u;
  let first_group_{{ r }} = min(row_{{ r }}, {{ rows - 1 }}u) * {{ groups }}u;
  var sum_{{ r }} = 0.0;
  {% endfor %}
  {% if groups >= stride %}
  for (var g = lane; g < {{ groups // stride * stride }}u; g += {{ stride }}u) {
{{ part(unroll, "g") }}
  }
  {% endif %}
  {% if groups % stride %}
  for (var g = lane + {{ groups // stride * stride }}u; g < {{ groups }}u; g += {{ variant.lanes }}u) {
{{ part(1, "g") }}
  }
  {% endif %}
  {% for r in range(team_rows) %}
  {{ teams.sum("sum_%d" % r) }}
  if (lane == 0u && row_{{ r }} < {{ rows }}u) { store_output(group.y, row_{{ r }}, sum_{{ r }}); }
  {% endfor %}
}
