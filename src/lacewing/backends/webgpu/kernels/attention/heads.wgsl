// What stands between the products of a layer and its attention: norms of heads, rotations, scales by position, and keys and
// values on their way into the store. A workgroup a head of one of the `chains`. Grid: heads of all chains, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}
{% for weight in range(weights) %}
@group(0) @binding({{ 2 + weight }}) var<storage, read> weight{{ weight }}: array<f32>;
{% endfor %}
{% for table in range(tables) %}
@group(0) @binding({{ 2 + weights + table }}) var<storage, read> frequencies{{ table }}: array<vec2<u32>>;
{% endfor %}
{% if kv %}
@group(0) @binding({{ 2 + weights + tables }}) var<storage, read_write> stored: array<u32>;
{% include "kv.wgsl" %}
{% endif %}
{% include "turn.wgsl" %}
{% include "workgroup_sum.wgsl" %}

var<workgroup> values: array<f32, {{ widest }}>;
{% if kv and kv.dtype == "q8_0" %}
var<workgroup> scales: array<f32, {{ widest // 32 + 2 }}>;
{% endif %}

fn mean_square(index: u32, width: u32) -> f32 {
  var sum = 0.0;
  for (var c = index; c < width; c += {{ threads }}u) { sum += values[c] * values[c]; }
  return workgroup_sum(index, sum) / f32(width);
}

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let t = group.y;
  let position = position_of(t);
  {% for chain in chains %}
  {{ "else " if not loop.first }}if (group.x < {{ chain.end }}u) {
    let head = group.x - {{ chain.first }}u;
    let at = {{ chain.place.base }}u + (t * {{ chain.place.stride }}u) + (head * {{ chain.width }}u);
    for (var c = index; c < {{ chain.width }}u; c += {{ threads }}u) { values[c] = arena[at + c]; }
    workgroupBarrier();
    {% for step in chain.steps %}
    {% if step.kind == "norm" %}
    {
      let factor = 1.0 / sqrt(mean_square(index, {{ chain.width }}u) + {{ number(step.eps) }});
      for (var c = index; c < {{ chain.width }}u; c += {{ threads }}u) {
        values[c] = values[c] * factor{% if step.weight is not none %} * (weight{{ step.weight }}[c] + {{ number(step.offset) }}){% endif %};
      }
    }
    {% elif step.kind == "rope" %}
    for (var pair = index; pair < {{ step.pairs }}u; pair += {{ threads }}u) {
      {% if step.adjacent %}
      let first = {{ step.start }}u + (pair * 2u);
      let second = first + 1u;
      {% else %}
      let first = {{ step.start }}u + pair;
      let second = first + {{ step.pairs }}u;
      {% endif %}
      let turn = turned(position, frequencies{{ step.table }}[pair]) * {{ number(step.magnitude) }};
      let a = values[first];
      let b = values[second];
      values[first] = a * turn.x - b * turn.y;
      values[second] = a * turn.y + b * turn.x;
    }
    {% elif step.kind == "hadamard" %}
    for (var span = 1u; span < {{ step.size }}u; span *= 2u) {
      for (var pair = index; pair < {{ chain.width // 2 }}u; pair += {{ threads }}u) {
        let first = ((pair / span) * span) + pair;
        let a = values[first];
        let b = values[first + span];
        values[first] = a + b;
        values[first + span] = a - b;
      }
      workgroupBarrier();
    }
    for (var c = index; c < {{ chain.width }}u; c += {{ threads }}u) { values[c] *= {{ number(step.size ** -0.5) }}; }
    {% else %}
    {
      let factor = 1.0 + {{ number(step.beta) }} * log(f32(1u + (position + {{ step.offset }}u) / {{ step.length }}u));
      for (var c = index; c < {{ chain.width }}u; c += {{ threads }}u) { values[c] *= factor; }
    }
    {% endif %}
    workgroupBarrier();
    {% endfor %}
    {% if chain.steps %}
    for (var c = index; c < {{ chain.width }}u; c += {{ threads }}u) { arena[at + c] = values[c]; }
    {% endif %}
    {% if chain.store %}
{% include "heads_store.wgsl" %}
    {% endif %}
  }
  {% endfor %}
}
