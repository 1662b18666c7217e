// Joins what the splits of `attention_decode_split` left: one query head of one token a workgroup. Grid: heads, tokens.
{% set words = "u32" %}
{% include "step.wgsl" %}
@group(0) @binding(2) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> first_token: array<u32>;  // of this pass, among those that are decoded
{% if sinks %}
@group(0) @binding(4) var<storage, read> sinks: array<f32>;
{% endif %}
{% include "attention_range.wgsl" %}
{% include "attention_out.wgsl" %}
{% import "team.wgsl" as teams with context %}
{% set V4 = 2 * kv.value_chunks %}

var<workgroup> largest: array<f32, {{ split_most }}>;
var<workgroup> totals: array<f32, {{ split_most }}>;
var<workgroup> sums: array<vec4<f32>, {{ strands * V4 }}>;

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments(true) }}) {
{{ teams.start() }}
  let head = group.x;
  let i = group.y;
  let t = {{ "i" if chosen else "decode_token(first_token[0] + i)" }};
  let position = position_of(t);
  let seen = {{ "min(position + 1u, %du)" % most if chosen else "position + 1u - first_seen(position)" }};
  let length = split_length(seen);
  let splits = (seen + length - 1u) / length;
  let first = ((i * {{ heads }}u) + head) * {{ split_most * (V4 + 1) }}u;
  for (var s = index; s < splits; s += {{ threads }}u) {
    let found = parts[first + (s * {{ V4 + 1 }}u) + {{ V4 }}u];
    largest[s] = found.x;
    totals[s] = found.y;
  }
  workgroupBarrier();
  var most = -3.4e38;
  for (var s = 0u; s < splits; s++) { most = max(most, largest[s]); }
  workgroupBarrier();
  for (var s = index; s < splits; s += {{ threads }}u) {
    let share = exp(largest[s] - most);
    largest[s] = share;
    totals[s] *= share;
  }
  workgroupBarrier();
  var total = 0.0;
  for (var s = 0u; s < splits; s++) { total += totals[s]; }
  let column = index % {{ V4 }}u;
  let strand = index / {{ V4 }}u;
  if (strand < {{ strands }}u) {
    var sum = vec4<f32>(0.0);
    for (var base = strand; base < splits; base += {{ 4 * strands }}u) {
      {% for u in range(4) %}
      let s{{ u }} = min(base + {{ u * strands }}u, splits - 1u);
      let p{{ u }} = parts[first + (s{{ u }} * {{ V4 + 1 }}u) + column];
      {% endfor %}
      {% for u in range(4) %}
      sum += select(0.0, largest[s{{ u }}], base + {{ u * strands }}u < splits) * p{{ u }};
      {% endfor %}
    }
    sums[(strand * {{ V4 }}u) + column] = sum;
  }
  workgroupBarrier();
  {% for base in range(0, V4, threads) %}
  {
    let on = {{ base }}u + index < {{ V4 }}u;
    let mine = min({{ base }}u + index, {{ V4 - 1 }}u);
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < {{ strands }}u; i++) { sum += sums[(i * {{ V4 }}u) + mine]; }
    {% if sinks %}
    let top = max(most, sinks[head]);
    let shrink = exp(most - top);
    let v = (sum * shrink) / ((total * shrink) + exp(sinks[head] - top));
    {% else %}
    let v = sum / total;
    {% endif %}
    let at = (head * {{ kv.value_width }}u) + (mine * 4u);
    if (on && mine * 4u < {{ kv.value_width }}u) { put_out(t, at, v, {{ kv.value_width }}u - (mine * 4u)); }
    {% if q8 and variant.subgroups and variant.lanes >= 8 %}
    put_q8(t, at, v, lane, on);
    {% endif %}
  }
  {% endfor %}
  {% if q8 and not (variant.subgroups and variant.lanes >= 8) %}
  put_q8_after(t, head * {{ kv.value_width }}u, {{ kv.value_width // 32 }}u, index, {{ threads }}u);
  {% endif %}
}
