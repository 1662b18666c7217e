{# Imported, not included. Teams of `variant.lanes` threads and what they make together: by a subgroup, or through workgroup memory;
   in the latter case all threads of the workgroup must come to it. `indexed`: the kernel uses its thread's `index` itself. #}
{% macro arguments(indexed=false) %}
@builtin(workgroup_id) group: vec3<u32>{{ ", @builtin(subgroup_id) team: u32, @builtin(subgroup_invocation_id) lane: u32" if variant.fixed }}{{ ", @builtin(local_invocation_index) index: u32" if indexed or not variant.fixed }}
{%- endmacro %}

{% macro declarations() %}
{% if not variant.subgroups %}
var<workgroup> partial: array<f32, {{ threads }}>;

fn team_total(index: u32, lane: u32, value: f32) -> f32 {
  partial[index] = value;
  workgroupBarrier();
  for (var s = {{ variant.lanes // 2 }}u; s > 0u; s >>= 1u) {
    if (lane < s) { partial[index] += partial[index + s]; }
    workgroupBarrier();
  }
  let total = partial[index - lane];
  workgroupBarrier();
  return total;
}

fn team_largest(index: u32, lane: u32, value: f32) -> f32 {
  partial[index] = value;
  workgroupBarrier();
  for (var s = {{ variant.lanes // 2 }}u; s > 0u; s >>= 1u) {
    if (lane < s) { partial[index] = max(partial[index], partial[index + s]); }
    workgroupBarrier();
  }
  let largest = partial[index - lane];
  workgroupBarrier();
  return largest;
}
{% endif %}
{% endmacro %}

{% macro start() %}
{% if not variant.fixed %}
  let team = index / {{ variant.lanes }}u;
  let lane = index % {{ variant.lanes }}u;
{% endif %}
{% endmacro %}

{% macro sum(name) %}
{{ name }} = {{ "%s(%s)" % (variant.add, name) if variant.subgroups else "team_total(index, lane, %s)" % name }};
{%- endmacro %}

{% macro largest(name) %}
{{ name }} = {{ "%s(%s)" % (variant.max, name) if variant.subgroups else "team_largest(index, lane, %s)" % name }};
{%- endmacro %}
