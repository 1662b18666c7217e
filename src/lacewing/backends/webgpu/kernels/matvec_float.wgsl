// y = x @ W.T for few tokens in float32: `lanes` threads a row, each with every lanes-th group of 32.
// Grid: rows / rows of a workgroup (in x and z), tokens.
{% set words = "vec4<f32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}

{% if not variant.subgroups %}
var<workgroup> partial: array<f32, {{ threads }}>;
{% endif %}

@compute @workgroup_size({{ threads }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  {% if variant.subgroups %}
  @builtin(subgroup_id) team: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  {% endif %}
) {
  {% if not variant.subgroups %}
  let team = index / {{ variant.lanes }}u;
  let lane = index % {{ variant.lanes }}u;
  {% endif %}
  let row = (group.x + group.z * 65535u) * {{ threads // variant.lanes }}u + team;
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
  {% if variant.subgroups %}
  sum = subgroupAdd(sum);
  {% else %}
  partial[index] = sum;
  workgroupBarrier();
  for (var s = {{ variant.lanes // 2 }}u; s > 0u; s >>= 1u) {
    if (lane < s) { partial[index] += partial[index + s]; }
    workgroupBarrier();
  }
  sum = partial[index];
  {% endif %}
  if (lane == 0u && row < {{ rows }}u) { store_output(group.y, row, sum); }
}
