// Chooses the experts of a token: the `active` best of `experts`, best first. Grid: 1, tokens; a workgroup a token.
// Scores are compared as integers in the order of the floats, so that ties and infinities come out alike on every device; the
// place of an expert is the number of those before it.
{% set words = "u32" %}
{% include "step.wgsl" %}
{% if biased %}
@group(0) @binding(2) var<storage, read> bias: array<f32>;
{% endif %}
{% if scaled %}
@group(0) @binding({{ 3 if biased else 2 }}) var<storage, read> scales: array<f32>;
{% endif %}
{% if watched %}
@group(0) @binding({{ 2 + (1 if biased else 0) + (1 if scaled else 0) }}) var<storage, read_write> kept: array<u32>;  // for each token: ids, probabilities
{% endif %}
{% include "activations.wgsl" %}
{% set fours = (experts + 15) // 16 * 4 %}

var<workgroup> keys: array<vec4<u32>, {{ fours }}>;  // those behind the last expert are below all
var<workgroup> shares: array<f32, {{ experts }}>;  // probabilities
var<workgroup> folded: array<u32, {{ threads }}>;
var<workgroup> best: array<f32, {{ active }}>;
{% if scaled or gating == "sparsemixer" %}
var<workgroup> chosen: array<u32, {{ active }}>;
{% endif %}
{% if biased %}
var<workgroup> failed: atomic<u32>;  // whether a score is not finite
{% endif %}
{% if groups > 1 %}
var<workgroup> runs: array<u32, {{ groups }}>;
{% endif %}

const NOT_A_NUMBER: u32 = 0xFFFFFFFFu;

// in the order of the floats, the zeros alike; what is not finite above all
fn key_of(bits: u32) -> u32 {
  let size = bits & 0x7FFFFFFFu;
  if (size >= 0x7F800000u) { return NOT_A_NUMBER; }
  if (size == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn float_of(key: u32) -> f32 { return bitcast<f32>(select(~key, key ^ 0x80000000u, (key & 0x80000000u) != 0u)); }

fn key_at(e: u32) -> u32 { return keys[e >> 2u][e & 3u]; }
fn put_key(e: u32, key: u32) { keys[e >> 2u][e & 3u] = key; }

fn score(e: u32) -> f32 { return shares[e]{{ " + bias[e]" if biased }}; }

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = group.y;
  let logits = {{ logits.base }}u + t * {{ logits.stride }}u;
  var largest = 0u;
  for (var e = lane; e < {{ experts }}u; e += {{ threads }}u) {
    let key = key_of(arena[logits + e]);
    put_key(e, key);
    largest = max(largest, key);
  }
  {% if experts % 16 %}
  for (var e = {{ experts }}u + lane; e < {{ fours * 4 }}u; e += {{ threads }}u) { put_key(e, 0u); }
  {% endif %}
  folded[lane] = largest;
  {% if biased %}
  if (lane == 0u) { atomicStore(&failed, 0u); }
  {% endif %}
  workgroupBarrier();
  for (var n = {{ threads // 2 }}u; n > 0u; n >>= 1u) {
    if (lane < n) { folded[lane] = max(folded[lane], folded[lane + n]); }
    workgroupBarrier();
  }
  var broken = folded[0] == NOT_A_NUMBER;
  {% if gating == "sigmoid" %}
  for (var e = lane; e < {{ experts }}u; e += {{ threads }}u) { shares[e] = sigmoid(max(float_of(key_at(e)), -80.0)); }
  {% else %}
  let top = float_of(folded[0]);
  workgroupBarrier();
  var sum = 0.0;
  for (var e = lane; e < {{ experts }}u; e += {{ threads }}u) {
    shares[e] = exp(float_of(key_at(e)) - top);
    sum += shares[e];
  }
  folded[lane] = bitcast<u32>(sum);
  workgroupBarrier();
  for (var n = {{ threads // 2 }}u; n > 0u; n >>= 1u) {
    if (lane < n) { folded[lane] = bitcast<u32>(bitcast<f32>(folded[lane]) + bitcast<f32>(folded[lane + n])); }
    workgroupBarrier();
  }
  let total = bitcast<f32>(folded[0]);
  for (var e = lane; e < {{ experts }}u; e += {{ threads }}u) { shares[e] /= total; }
  {% endif %}
  workgroupBarrier();
  {% if biased %}
  for (var e = lane; e < {{ experts }}u; e += {{ threads }}u) {
    let key = key_of(bitcast<u32>(score(e)));
    put_key(e, key);
    if (key == NOT_A_NUMBER) { atomicStore(&failed, 1u); }
  }
  workgroupBarrier();
  broken = broken || atomicLoad(&failed) != 0u;
  {% endif %}
  {% if groups > 1 %}
  {% set size = experts // groups %}
  for (var g = lane; g < {{ groups }}u; g += {{ threads }}u) {
    var first = score(g * {{ size }}u);
    {% if group_best == 2 %}
    var second = score(g * {{ size }}u + 1u);
    if (second > first) {
      let lower = first;
      first = second;
      second = lower;
    }
    {% endif %}
    for (var e = g * {{ size }}u + {{ group_best }}u; e < (g + 1u) * {{ size }}u; e++) {
      let s = score(e);
      {% if group_best == 2 %}
      second = max(second, min(first, s));
      {% endif %}
      first = max(first, s);
    }
    runs[g] = key_of(bitcast<u32>(first{{ " + second" if group_best == 2 }}));
  }
  workgroupBarrier();
  for (var e = lane; e < {{ experts }}u; e += {{ threads }}u) {
    let g = e / {{ size }}u;
    var before = 0u;
    for (var other = 0u; other < {{ groups }}u; other++) {
      before += u32(runs[other] > runs[g] || (runs[other] == runs[g] && other < g));
    }
    if (before >= {{ groups_used }}u) { put_key(e, 0u); }  // below every float
  }
  workgroupBarrier();
  {% endif %}
  for (var e = lane; e < {{ experts }}u; e += {{ threads }}u) {
    let mine = vec4<u32>(key_at(e));
    var before = vec4<u32>(0u);
    for (var i = 0u; i < {{ fours }}u; i += 4u) {
      {% for u in range(4) %}
      let key_{{ u }} = keys[i + {{ u }}u];
      {% endfor %}
      {% for u in range(4) %}
      before += vec4<u32>(key_{{ u }} > mine) + vec4<u32>((key_{{ u }} == mine) & (i * 4u + vec4<u32>({{ u * 4 }}u, {{ u * 4 + 1 }}u, {{ u * 4 + 2 }}u, {{ u * 4 + 3 }}u) < vec4<u32>(e)));
      {% endfor %}
    }
    var place = before.x + before.y + before.z + before.w;
    if (broken) { place = e; }
    if (place < {{ active }}u) {
      arena[{{ ids.base }}u + t * {{ ids.stride }}u + place] = e;
      best[place] = shares[e];
      {% if scaled or gating == "sparsemixer" %}
      chosen[place] = e;
      {% endif %}
      {% if watched %}
      kept[t * {{ kept_stride }}u + {{ kept_first }}u + place] = e;
      {% endif %}
    }
    {% if watched %}
    kept[t * {{ kept_stride }}u + {{ kept_first + active }}u + e] = bitcast<u32>(shares[e]);
    {% endif %}
  }
  workgroupBarrier();
  for (var a = lane; a < {{ active }}u; a += {{ threads }}u) {
    var w = best[a];
    {% if gating == "sparsemixer" %}
    let m = float_of(key_at(chosen[a]));
    var near = 0.0;
    for (var e = 0u; e < {{ experts }}u; e++) {
      let s = float_of(key_at(e));
      var left = m - s <= {{ number(2 * jitter) }} * max(abs(s), m);
      for (var other = 0u; other < a; other++) { left = left && chosen[other] != e; }
      if (left) { near += exp(s - m); }
    }
    w = 1.0 / near;
    {% endif %}
    {% if renormalise %}
    var all = 0.0;
    for (var other = 0u; other < {{ active }}u; other++) { all += best[other]; }
    w /= all + 1e-20;
    {% endif %}
    {% if scaled %}
    w *= scales[chosen[a]];
    {% endif %}
    arena[{{ weights.base }}u + t * {{ weights.stride }}u + a] = select(bitcast<u32>(w * {{ number(scale) }}), 0x7FC00000u, broken);
  }
}
