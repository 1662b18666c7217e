// One query head of one token: softmax over the keys it sees, 64 at a time, sums kept as they come (online softmax).
// Grid: heads, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}
@group(0) @binding(2) var<storage, read> stored: array<u32>;
{% if sinks %}
@group(0) @binding(3) var<storage, read> sinks: array<f32>;
{% endif %}
{% include "kv.wgsl" %}
{% include "activations.wgsl" %}

var<workgroup> query: array<f32, {{ kv.key_width }}>;
var<workgroup> shares: array<f32, {{ threads }}>;
var<workgroup> folded: array<f32, {{ threads }}>;

{% if kv.half %}
fn pair(word: u32) -> vec2<f32> { return unpack2x16float(stored[word]); }
{% endif %}

fn score(key: u32) -> f32 {
  var sum = 0.0;
  {% if kv.half %}
  for (var i = 0u; i < {{ kv.key_words }}u; i++) {
    sum += dot(pair(key + i), vec2<f32>(query[2u * i], query[2u * i + 1u]));
  }
  {% else %}
  for (var i = 0u; i < {{ kv.key_words }}u; i++) { sum += bitcast<f32>(stored[key + i]) * query[i]; }
  {% endif %}
  sum *= {{ number(scale) }};
  {% if softcap %}
  sum = {{ number(softcap) }} * steady_tanh(sum / {{ number(softcap) }});
  {% endif %}
  return sum;
}

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let head = group.x;
  let t = group.y;
  let slot = slot_of(t);
  let position = position_of(t);
  let key_head = head / {{ heads // kv.key_heads }}u;
  for (var i = lane; i < {{ kv.key_width }}u; i += {{ threads }}u) {
    query[i] = arena[{{ q.base }}u + t * {{ q.stride }}u + head * {{ kv.key_width }}u + i];
  }
  var first = 0u;
  {% if window %}
  first = u32(max(0, i32(position) - {{ window - 1 }}));
  {% endif %}
  {% if span %}
  first = max(first, position / {{ span }}u * {{ span }}u);
  {% endif %}
  {% if sinks %}
  var largest = sinks[head];
  var total = 1.0;
  {% else %}
  var largest = -3.4e38;
  var total = 0.0;
  {% endif %}
  {% set parts = (kv.value_width + threads - 1) // threads %}
  var sums: array<f32, {{ parts }}>;
  workgroupBarrier();
  for (var start = first; start <= position; start += {{ threads }}u) {
    let mine = start + lane;
    var s = -3.4e38;
    if (mine <= position) { s = score(key_word(slot, key_head, mine)); }
    shares[lane] = s;
    folded[lane] = s;
    workgroupBarrier();
    for (var n = {{ threads // 2 }}u; n > 0u; n >>= 1u) {
      if (lane < n) { folded[lane] = max(folded[lane], folded[lane + n]); }
      workgroupBarrier();
    }
    let higher = max(largest, folded[0]);
    let shrink = exp(largest - higher);
    largest = higher;
    workgroupBarrier();
    let share = select(0.0, exp(s - largest), mine <= position);
    shares[lane] = share;
    folded[lane] = share;
    workgroupBarrier();
    for (var n = {{ threads // 2 }}u; n > 0u; n >>= 1u) {
      if (lane < n) { folded[lane] += folded[lane + n]; }
      workgroupBarrier();
    }
    total = total * shrink + folded[0];
    let count = min({{ threads }}u, position - start + 1u);
    for (var part = 0u; part < {{ parts }}u; part++) {
      let c = part * {{ threads }}u + lane;
      if (c >= {{ kv.value_width }}u) { break; }
      var sum = sums[part] * shrink;
      for (var i = 0u; i < count; i++) {
        let at = value_word(slot, key_head, start + i);
        {% if kv.half %}
        sum += shares[i] * pair(at + (c >> 1u))[c & 1u];
        {% else %}
        sum += shares[i] * bitcast<f32>(stored[at + c]);
        {% endif %}
      }
      sums[part] = sum;
    }
    workgroupBarrier();
  }
  for (var part = 0u; part < {{ parts }}u; part++) {
    let c = part * {{ threads }}u + lane;
    if (c < {{ kv.value_width }}u) {
      arena[{{ out.base }}u + t * {{ out.stride }}u + head * {{ kv.value_width }}u + c] = sums[part] / total;
    }
  }
}
