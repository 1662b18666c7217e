// A matrix for each head, few tokens, in float32: `lanes` threads make a row, each with every lanes-th group of 32. Behind the
// rows come workgroups that copy what is left of each head. Grid: rows / rows of a workgroup, and copies, tokens.
{% set words = "vec4<f32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% set team_rows = threads // lanes %}
{% set row_groups = (heads * outputs + team_rows - 1) // team_rows %}
{% if not variant.subgroups %}
var<workgroup> partial: array<f32, {{ threads }}>;
{% endif %}

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let t = group.y;
  let x = {{ x.base }}u + (t * {{ x.stride }}u);
  let out = {{ out.base }}u + (t * {{ out.stride }}u);
  {% if rest %}
  if (group.x >= {{ row_groups }}u) {
    let item = ((group.x - {{ row_groups }}u) * {{ threads }}u) + index;
    let from_head = item / {{ rest }}u;
    if (from_head < {{ heads }}u) {
      let source = x + (from_head * {{ columns + rest }}u) + {{ columns }}u + (item % {{ rest }}u);
      let to = out + (from_head * {{ outputs + rest }}u) + {{ outputs }}u + (item % {{ rest }}u);
      arena[to >> 2u][to & 3u] = arena[source >> 2u][source & 3u];
    }
    return;
  }
  {% endif %}
  let row = (group.x * {{ team_rows }}u) + (index / {{ lanes }}u);
  let lane = index % {{ lanes }}u;
  let head = row / {{ outputs }}u;
  var sum = 0.0;
  if (head < {{ heads }}u) {
    for (var g = lane; g < {{ groups }}u; g += {{ lanes }}u) {
      let w = load_floats((row * {{ groups }}u) + g);
      let at = x + (head * {{ columns + rest }}u) + (g * 32u);
      {% if columns % 32 or (columns + rest) % 4 or x.base % 4 %}
      for (var i = 0u; i < 32u; i++) {
        let c = at + i;
        if ((g * 32u) + i < {{ columns }}u) { sum += w[i >> 2u][i & 3u] * arena[c >> 2u][c & 3u]; }
      }
      {% else %}
      {% for i in range(8) %}
      sum += dot(w[{{ i }}], arena[(at >> 2u) + {{ i }}u]);
      {% endfor %}
      {% endif %}
    }
  }
  {% if variant.subgroups %}
  {% for step in (32, 16, 8, 4, 2, 1) if step < lanes %}
  sum += subgroupShuffleXor(sum, {{ step }}u);
  {% endfor %}
  {% else %}
  partial[index] = sum;
  workgroupBarrier();
  for (var s = {{ lanes // 2 }}u; s > 0u; s >>= 1u) {
    if (lane < s) { partial[index] += partial[index + s]; }
    workgroupBarrier();
  }
  sum = partial[index];
  {% endif %}
  if (lane == 0u && head < {{ heads }}u) {
    let to = out + (head * {{ outputs + rest }}u) + (row % {{ outputs }}u);
    arena[to >> 2u][to & 3u] = sum;
  }
}
