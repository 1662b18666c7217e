// The positions with the largest scores of a token, ascending: their threshold by counting bits from the highest on, then each thread
// writes those of its own run of positions. A workgroup a token. Grid: tokens of the pass.
{% set words = "u32" %}
{% include "step.wgsl" %}
@group(0) @binding(2) var<storage, read> scores: array<u32>;       // float32 (tokens of the pass, row_words)
@group(0) @binding(3) var<storage, read> first_token: array<u32>;  // of the pass

var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> bin: u32;
var<workgroup> wanted: u32;  // of those that begin like the threshold
var<workgroup> above: array<u32, 256>;
var<workgroup> equal: array<u32, 256>;

// in the order of the numbers; -0 is 0, and NaN the largest
fn sort_key(bits: u32) -> u32 {
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) { return 0xFFFFFFFFu; }
  if (bits == 0x80000000u) { return bits; }
  return bits ^ select(0x80000000u, 0xFFFFFFFFu, (bits >> 31u) == 1u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let t = first_token[0] + group.x;
  let seen = position_of(t) + 1u;
  if (seen <= {{ most }}u) { return; }
  let row = group.x * {{ row_words }}u;
  var threshold = 0u;
  if (index == 0u) { wanted = {{ most }}u; }
  {% for shift in (24, 16, 8, 0) %}
  atomicStore(&counts[index], 0u);
  workgroupBarrier();
  for (var s = index; s < seen; s += 256u) {
    let key = sort_key(scores[row + s]);
    {% if shift == 24 %}
    atomicAdd(&counts[key >> 24u], 1u);
    {% else %}
    if ((key >> {{ shift + 8 }}u) == threshold) { atomicAdd(&counts[(key >> {{ shift }}u) & 255u], 1u); }
    {% endif %}
  }
  workgroupBarrier();
  if (index == 0u) {
    var left = wanted;
    var b = 255u;
    for (; b > 0u && left > atomicLoad(&counts[b]); b--) { left -= atomicLoad(&counts[b]); }
    bin = b;
    wanted = left;
  }
  workgroupBarrier();
  threshold = (threshold << 8u) | bin;
  {% endfor %}
  let length = (seen + 255u) / 256u;
  let start = min(index * length, seen);
  let end = min(start + length, seen);
  var mine = vec2<u32>(0u);
  for (var s = start; s < end; s++) {
    let key = sort_key(scores[row + s]);
    mine += vec2<u32>(u32(key > threshold), u32(key == threshold));
  }
  above[index] = mine.x;
  equal[index] = mine.y;
  workgroupBarrier();
  var before = vec2<u32>(0u);
  for (var i = 0u; i < index; i++) { before += vec2<u32>(above[i], equal[i]); }
  var left = wanted - min(wanted, before.y);
  var to = {{ chosen.base }}u + (t * {{ chosen.stride }}u) + before.x + min(wanted, before.y);
  for (var s = start; s < end; s++) {
    let key = sort_key(scores[row + s]);
    if (key > threshold || (key == threshold && left > 0u)) {
      left -= u32(key == threshold);
      arena[to] = s;
      to++;
    }
  }
}
