{# The sum of a value of all `threads` of a workgroup, in each of them. Before the next one, all must pass a barrier. #}
{% set by_teams = variant.subgroups and threads % variant.lanes == 0 %}
var<workgroup> sums: array<f32, {{ threads // variant.lanes if by_teams else threads }}>;

fn workgroup_sum(index: u32, value: f32) -> f32 {
  {% if by_teams %}
  let part = {{ variant.add }}(value);
  if (index % {{ variant.lanes }}u == 0u) { sums[index / {{ variant.lanes }}u] = part; }
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < {{ threads // variant.lanes }}u; i++) { sum += sums[i]; }
  return sum;
  {% else %}
  sums[index] = value;
  workgroupBarrier();
  for (var n = {{ threads // 2 }}u; n > 0u; n >>= 1u) {
    if (index < n) { sums[index] += sums[index + n]; }
    workgroupBarrier();
  }
  return sums[0];
  {% endif %}
}
