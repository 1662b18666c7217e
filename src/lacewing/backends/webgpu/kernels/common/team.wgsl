{# Imported, not included. Teams of `variant.lanes` threads and what they make together: by a subgroup, or through workgroup memory;
   in the latter case all threads of the workgroup must come to it. `indexed`: the kernel uses its thread's `index` itself. `values`:
   how many `sum_many` adds up at once. #}
{% macro arguments(indexed=false) %}
@builtin(workgroup_id) group: vec3<u32>{{ ", @builtin(subgroup_id) team: u32, @builtin(subgroup_invocation_id) lane: u32" if variant.fixed }}{{ ", @builtin(local_invocation_index) index: u32" if indexed or not variant.fixed }}
{%- endmacro %}

{% macro declarations(values=1) %}
{% if not variant.subgroups and values > 1 %}
var<workgroup> partials: array<f32, {{ values * (threads + 1) }}>;
{% elif not variant.subgroups %}
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

{# How many of so many values `sum_many` takes at once: all that a subgroup can, or what 8 KiB of workgroup memory hold. #}
{% macro width(values) %}
{{- [values, variant.lanes, variant.lanes if variant.subgroups else [2048 // threads, 2] | max] | min -}}
{% endmacro %}

{# What `team_total` adds up, in its order. #}
{% macro total(at, step) %}
{%- if step == variant.lanes %}partials[first + {{ at }}u]{% else %}({{ total(at, 2 * step) }} + {{ total(at + step, 2 * step) }}){% endif -%}
{% endmacro %}

{# Sums over a team of 2^k values a thread, `width` at most. The first of `names` is then the sum of the one that `which` tells.
   With subgroups each exchange halves what a thread still adds, so that n values take n - 1 exchanges and a few more, not n times as
   many. Otherwise each thread adds up one value of all its team: two barriers, where a sum of each alone has two and one a halving
   (and software adapters compile for seconds, because of every barrier). #}
{% macro sum_many(names) %}
{% if not variant.subgroups %}
  {% for name in names %}
  partials[{{ loop.index0 * (threads + 1) }}u + index] = {{ name }};
  {% endfor %}
  workgroupBarrier();
  {
    let first = lane / {{ variant.lanes // (names | length) }}u * {{ threads + 1 }}u + index - lane;
    {{ names[0] }} = {{ total(0, 1) }};
  }
  workgroupBarrier();
{% else %}
{% set steps = namespace(mask=variant.lanes // 2, left=names | length) %}
{% for step in (2, 4, 8, 16, 32, 64, 128) if step <= variant.lanes %}
{% set half = steps.left // 2 %}
{% if half %}
  {
    let upper = (lane & {{ steps.mask }}u) != 0u;
    {% for i in range(half) %}
    {{ names[i] }} = select({{ names[i] }}, {{ names[i + half] }}, upper) + subgroupShuffleXor(select({{ names[i + half] }}, {{ names[i] }}, upper), {{ steps.mask }}u);
    {% endfor %}
  }
{% set steps.left = half %}
{% else %}
  {{ names[0] }} += subgroupShuffleXor({{ names[0] }}, {{ steps.mask }}u);
{% endif %}
{% set steps.mask = steps.mask // 2 %}
{% endfor %}
{% endif %}
{%- endmacro %}

{# As `sum`, added up as `sum_many` does. #}
{% macro sum_one(name) %}
{{ sum_many([name]) if variant.subgroups else sum(name) }}
{%- endmacro %}
