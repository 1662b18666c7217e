// y = x @ W.T for few tokens in float32: a team of `lanes` threads makes a row, each thread with every lanes-th group of 32.
// Grid: rows / rows of a workgroup (in x and z), tokens.
{% set words = "vec4<f32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments() }}) {
{{ teams.start() }}  let row = (group.x + group.z * 65535u) * {{ threads // variant.lanes }}u + team;
  let t = {{ "output_of(first_row() + group.y)" if by_rows else "group.y" }};
  var sum = 0.0;
  if (row < {{ rows }}u) {
    for (var g = lane; g < {{ groups }}u; g += {{ variant.lanes }}u) {
      let w = load_floats(row * {{ groups }}u + g);
      let at = {{ x.base }}u + t * {{ x.stride }}u + g * 32u;
      {% if columns % 32 or x.base % 4 %}
      for (var i = 0u; i < 32u; i++) {
        let c = at + i;
        if (g * 32u + i < {{ columns }}u) { sum += w[i >> 2u][i & 3u] * arena[c >> 2u][c & 3u]; }
      }
      {% else %}
      {% for i in range(8) %}
      sum += dot(w[{{ i }}], arena[(at >> 2u) + {{ i }}u]);
      {% endfor %}
      {% endif %}
    }
  }
  {{ teams.sum("sum") }}
  if (lane == 0u && row < {{ rows }}u) { store_output(group.y, row, sum); }
}
