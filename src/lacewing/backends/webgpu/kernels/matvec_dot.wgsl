// y = x @ W.T for few tokens, activations as bytes: `lanes` threads a row, each with every lanes-th group of 32.
// Grid: rows / rows of a workgroup (in x and z), tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}

{% if not variant.subgroups %}
var<workgroup> partial: array<f32, {{ threads }}>;
{% endif %}

{% include "dot.wgsl" %}

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
      let w = load_group(row * {{ groups }}u + g);
      let at = ({{ x.codes.base }}u + t * {{ x.codes.stride }}u) / 4u + g * 2u;
      let fact = {{ x.facts.base }}u + t * {{ x.facts.stride }}u + g * 2u;
      let facts = arena[fact >> 2u];
      sum += dot_group(w, arena[at], arena[at + 1u], select(facts.xy, facts.zw, (fact & 2u) != 0u));
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
