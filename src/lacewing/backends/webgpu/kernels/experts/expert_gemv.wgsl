// Few tokens through their experts: `lanes` threads a row, `each` rows of a part a team, `unrolled` groups at a time. Grid: rows of a part / tile, active
// experts, tokens. An expert has `parts` results (rows one after another, or alternating), or an activation makes one of two.
{% include "experts.wgsl" %}
{% include "activations.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}
{% set team_count = threads // variant.lanes %}
{% set each = tile // team_count %}

{% if q8 %}
var<workgroup> made: array<f32, 32>;
var<workgroup> sums: array<i32, 8>;
{% endif %}
{% if not variant.subgroups %}
var<workgroup> shared_expert: u32;
{% endif %}

{% macro part(count) %}
    {% for u in range(count) %}
    let g_{{ u }} = start + {{ u * variant.lanes }}u;
    let x_{{ u }} = load_input(t, a, g_{{ u }});
    {% endfor %}
    {% for u in range(count) %}
    {% for i in range(each) %}
    {% for p in range(parts) %}
    sum_{{ i }}_{{ p }} += times(weight_{{ i }}_{{ p }} + g_{{ u }}, x_{{ u }});
    {% endfor %}
    {% endfor %}
    {% endfor %}
{% endmacro %}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments(true) }}) {
{{ teams.start() }}
  let t = group.z;
  let a = group.y;
  {% if variant.subgroups %}
  let expert = expert_of(t, a);
  {% else %}
  // the barriers of sums must come to all threads or to none, for compilers to see
  if (index == 0u) { shared_expert = expert_of(t, a); }
  let expert = workgroupUniformLoad(&shared_expert);
  {% endif %}
  let inside = expert - {{ first_expert }}u;  // of this shard; wraps round for those before it
  let here = inside < {{ experts }}u;
  if (here) {
  let row = group.x * {{ tile }}u + team;
  {% for i in range(each) %}
  let row_{{ i }} = min(row + {{ i * team_count }}u, {{ rows - 1 }}u);
  {% for p in range(parts) %}
  let weight_{{ i }}_{{ p }} = (inside * {{ rows * parts }}u + {{ "row_%d * %du + %du" % (i, parts, p) if interleaved else "row_%d + %du" % (i, p * rows) }}) * {{ groups }}u;
  var sum_{{ i }}_{{ p }} = 0.0;
  {% endfor %}
  {% endfor %}
  {% set stride = variant.lanes * unrolled %}
  {% if groups >= stride %}
  for (var start = lane; start < {{ groups // stride * stride }}u; start += {{ stride }}u) {
{{ part(unrolled) }}
  }
  {% endif %}
  {% if groups % stride %}
  for (var start = lane + {{ groups // stride * stride }}u; start < {{ groups }}u; start += {{ variant.lanes }}u) {
{{ part(1) }}
  }
  {% endif %}
  {% for i in range(each) %}
  {% for p in range(parts) %}
  {{ teams.sum("sum_%d_%d" % (i, p)) }}
  {% endfor %}
  {% endfor %}
  if (lane == 0u) {
    {% if factor %}
    let factor = bitcast<f32>(word({{ factor.base }}u + t * {{ factor.stride }}u + a));
    {% endif %}
    {% for i in range(each) %}
    if (row + {{ i * team_count }}u < {{ rows }}u) {
      {% for p in range(parts) %}
      let y_{{ p }} = sum_{{ i }}_{{ p }}{{ " * factor" if factor }}{% if biased %} + bias[expert * {{ rows * parts }}u + {{ "row_%d * %du + %du" % (i, parts, p) if interleaved else "row_%d + %du" % (i, p * rows) }}]{% endif %};
      {% endfor %}
      {% for out in outs %}
      {% if activation %}
      let y = {{ activation }};
      {% if q8 %}
      made[team + {{ i * team_count }}u] = y;
      {% endif %}
      {% endif %}
      put_word({{ out.base }}u + t * {{ out.stride }}u + a * {{ rows }}u + row_{{ i }}, bitcast<u32>({{ "y" if activation else "y_%d" % loop.index0 }}));
      {% endfor %}
    }
    {% endfor %}
  }
  }
  {% if q8 %}
  // the 32 rows as bytes: a thread a word, as q8.wgsl has it
  workgroupBarrier();
  let place = a * {{ rows // 32 }}u + group.x;
  var largest = 0.0;
  if (here && index < 8u) {
    var bits = 0u;  // as integers, so that a NaN is the largest
    {% for i in range(32) %}
    bits = max(bits, bitcast<u32>(made[{{ i }}]) & 0x7FFFFFFFu);
    {% endfor %}
    largest = bitcast<f32>(bits);
    let inverse = select(0.0, 127.0 / largest, largest > 0.0);
    let four = vec4<f32>(made[index * 4u], made[index * 4u + 1u], made[index * 4u + 2u], made[index * 4u + 3u]);
    let bytes = vec4<i32>(round(four * inverse));
    sums[index] = bytes.x + bytes.y + bytes.z + bytes.w;
    put_word({{ q8.values.base }}u + t * {{ q8.values.stride }}u + place * 8u + index, pack4xI8(bytes));
  }
  workgroupBarrier();
  if (here && index == 0u) {
    let low = sums[0] + sums[1] + sums[2] + sums[3];
    let high = sums[4] + sums[5] + sums[6] + sums[7];
    let fact = {{ q8.scales.base }}u + t * {{ q8.scales.stride }}u + place * 2u;
    put_word(fact, bitcast<u32>(largest / 127.0));
    put_word(fact + 1u, (bitcast<u32>(low) & 0xFFFFu) | (bitcast<u32>(high) << 16u));
  }
  {% endif %}
}
