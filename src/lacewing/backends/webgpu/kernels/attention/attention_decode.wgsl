// Attention of tokens one by one: a workgroup takes `block` query heads of a key head, so that keys and values are read once for
// all. A tile of keys at a time: scores, softmax with sums kept as they come, values. Here a workgroup has all keys of a token;
// the templates that extend this one divide them, or prepare the heads as well. Grid: heads / block, splits, tokens.
{% set words = "u32" %}
{% include "step.wgsl" %}
{% block bindings %}
{% if sinks %}
@group(0) @binding(3) var<storage, read> sinks: array<f32>;
{% endif %}
{% include "attention_out.wgsl" %}
{% endblock %}
{% include "kv.wgsl" %}
{% include "kv_load.wgsl" %}
{% include "activations.wgsl" %}
{% include "attention_range.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}
{% set C = kv.key_chunks %}
{% set V = kv.value_chunks %}
{% set V4 = 2 * V %}

var<workgroup> pool: array<vec4<f32>, {{ pool }}>;  // queries; in the end sums of values
var<workgroup> shares: array<f32, {{ block * tile }}>;
var<workgroup> largest: array<f32, {{ block }}>;
var<workgroup> totals: array<f32, {{ block }}>;
var<workgroup> shrinks: array<f32, {{ block }}>;


fn place_of(g: u32, c: u32) -> u32 { return (g * {{ C * 8 }}u) + (((c >> 2u) & 1u) * {{ C * 4 }}u) + ((c >> 3u) * 4u) + (c & 3u); }

fn value_of(g: u32, c: u32) -> f32 {
  let place = place_of(g, c);
  return pool[place >> 2u][place & 3u];
}

fn set_value(g: u32, c: u32, value: f32) {
  let place = place_of(g, c);
  pool[place >> 2u][place & 3u] = value;
}

{% block functions %}{% endblock %}

fn capped(x: f32) -> f32 {
  {% if softcap %}
  return {{ number(softcap) }} * steady_tanh(x / {{ number(softcap) }});
  {% else %}
  return x;
  {% endif %}
}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments(true) }}) {
{{ teams.start() }}
  {% block token %}
  let t = {{ "group.z" if chosen else "decode_token(group.z)" }};
  {% endblock %}
  let row = row_of(t);
  let position = position_of(t);
  let head = group.x * {{ block }}u;
  let key_head = head / {{ heads // kv.key_heads }}u;
  var first = first_seen(position);
  var end = {{ "min(position + 1u, %du)" % most if chosen else "position + 1u" }};
  {% block part %}{% endblock %}
{% include "decode_queries.wgsl" %}
  {% block prepare %}{% endblock %}
  if (index < {{ block }}u) {
    largest[index] = -3.4e38;
    totals[index] = 0.0;
  }
  let key = index / {{ row_lanes }}u;  // of those that the workgroup scores at a time
  let sub = index % {{ row_lanes }}u;
  let chunk = index % {{ V }}u;
  let strand = index / {{ V }}u;  // of the values
  {% for g in range(block) %}
  var a{{ g }} = vec4<f32>(0.0);
  var b{{ g }} = vec4<f32>(0.0);
  {% endfor %}
  workgroupBarrier();
  for (var start = first; start < end; start += {{ tile }}u) {
    let count = min({{ tile }}u, end - start);
    {% if kv.dtype == "f16" %}
    // the first values are on their way while the keys are looked at
    {% for u in range(4) %}
    let ahead{{ u }} = stored[(value_word(row, key_head, seen_at(t, start + min(strand + {{ u * strands }}u, count - 1u))) >> 2u) + chunk];
    {% endfor %}
    {% endif %}
{% include "decode_scores.wgsl" %}
    workgroupBarrier();
{% include "decode_softmax.wgsl" %}
    workgroupBarrier();
{% include "decode_values.wgsl" %}
    workgroupBarrier();
  }
  // sums of the strands, `together` heads at a time
  {% for start in range(0, block, together) %}
  {% set members = range(start, (start + together, block) | min) %}
  {% for g in members %}
  {
    var a = a{{ g }};
    var b = b{{ g }};
    {% for step in folds %}
    a += subgroupShuffleXor(a, {{ step }}u);
    b += subgroupShuffleXor(b, {{ step }}u);
    {% endfor %}
    if ({{ "strand < %du && " % strands if threads % V }}(strand & {{ fold - 1 }}u) == 0u) {
      let at = {{ (g - start) * V4 * (strands // fold) }}u + ((strand / {{ fold }}u) * {{ V4 }}u) + (chunk * 2u);
      pool[at] = a;
      pool[at + 1u] = b;
    }
  }
  {% endfor %}
  workgroupBarrier();
  for (var base = 0u; base < {{ members | length * V4 }}u; base += {{ threads }}u) {
    let item = min(base + index, {{ members | length * V4 - 1 }}u);
    let on = base + index < {{ members | length * V4 }}u;
    let h = item / {{ V4 }}u;
    let column = item % {{ V4 }}u;
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < {{ strands // fold }}u; i++) { sum += pool[(h * {{ V4 * (strands // fold) }}u) + (i * {{ V4 }}u) + column]; }
    let g = {{ start }}u + h;
    {% block result scoped %}
    {% if sinks %}
    let most = max(largest[g], sinks[head + g]);
    let shrink = exp(largest[g] - most);
    let v = (sum * shrink) / ((totals[g] * shrink) + exp(sinks[head + g] - most));
    {% else %}
    let v = sum / totals[g];
    {% endif %}
    let at = ((head + g) * {{ kv.value_width }}u) + (column * 4u);
    if (on && column * 4u < {{ kv.value_width }}u) { put_out(t, at, v, {{ kv.value_width }}u - (column * 4u)); }
    {% if q8 and variant.subgroups and variant.lanes >= 8 %}
    put_q8(t, at, v, lane, on);
    {% endif %}
    {% endblock %}
  }
  {% if not loop.last %}
  workgroupBarrier();
  {% endif %}
  {% endfor %}
  {% block after %}
  {% if q8 and not (variant.subgroups and variant.lanes >= 8) %}
  put_q8_after(t, head * {{ kv.value_width }}u, {{ block * kv.value_width // 32 }}u, index, {{ threads }}u);
  {% endif %}
  {% endblock %}
}
