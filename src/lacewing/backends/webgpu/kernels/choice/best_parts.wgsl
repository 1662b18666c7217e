// Of each part of each row of logits: its largest values with their ids, the largest, and the sum of exponentials above it.
// Grid: parts, rows. A broken logit has the id 0xFFFFFFFF. Masks and biases (`step.wishes`) change which are the largest, not the sum.
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> best: array<vec2<u32>>;   // (rows, parts, wanted)
@group(0) @binding(2) var<storage, read_write> totals: array<vec2<f32>>; // (rows, parts): largest, sum of exp(logit - largest)
{% if stride %}
@group(0) @binding(3) var<storage, read> wishes: array<u32>; // (rows, stride): masked?, number of biases, mask, ids (ascending), biases

fn wished(value: vec2<u32>, row: u32) -> vec2<u32> {
  let words = {{ (vocabulary + 31) // 32 }}u;
  if (value.y >= 0xFFFFFFFEu) { return value; }
  if (wishes[row] != 0u && (wishes[row + 2u + (value.y >> 5u)] & (1u << (value.y & 31u))) == 0u) {
    return vec2<u32>(0xFF7FFFFFu, 0xFFFFFFFEu);
  }
  let ids = row + 2u + words;
  var low = 0u;
  var high = wishes[row + 1u];
  while (low < high) {
    let middle = (low + high) / 2u;
    if (wishes[ids + middle] < value.y) { low = middle + 1u; } else { high = middle; }
  }
  if (low < wishes[row + 1u] && wishes[ids + low] == value.y) {
    return vec2<u32>(bitcast<u32>(bitcast<f32>(value.x) + bitcast<f32>(wishes[ids + {{ biases }}u + low])), value.y);
  }
  return value;
}
{% endif %}

var<private> values: array<vec2<u32>, {{ each }}>;
var<private> part: u32;
var<private> part_of_row: u32;

fn held(j: u32) -> vec2<u32> { return values[j]; }
fn keep(place: u32, found: vec2<u32>) { best[part_of_row * {{ wanted }}u + place] = found; }

{% include "best_rounds.wgsl" %}

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  part = group.x;
  part_of_row = group.y * {{ parts }}u + group.x;
  var largest = -0x1.fffffep127;
  for (var j = 0u; j < {{ each }}u; j++) {
    let i = part * {{ each * 256 }}u + j * 256u + lane;
    values[j] = vec2<u32>(0xFF7FFFFFu, 0xFFFFFFFEu);
    if (i < {{ vocabulary }}u) {
      let bits = bitcast<u32>(logits[group.y * {{ vocabulary }}u + i]);
      values[j] = vec2<u32>(bits, select(i, 0xFFFFFFFFu, (bits & 0x7F800000u) == 0x7F800000u && bits != 0xFF800000u));
      largest = max(largest, bitcast<f32>(bits));
    }
  }
  sums[lane] = largest;
  workgroupBarrier();
  for (var n = 128u; n > 0u; n >>= 1u) {
    if (lane < n) { sums[lane] = max(sums[lane], sums[lane + n]); }
    workgroupBarrier();
  }
  largest = sums[0];
  workgroupBarrier();
  var sum = 0.0;
  for (var j = 0u; j < {{ each }}u; j++) {
    if (values[j].y != 0xFFFFFFFEu) { sum += exp(bitcast<f32>(values[j].x) - largest); }
  }
  sums[lane] = sum;
  workgroupBarrier();
  for (var n = 128u; n > 0u; n >>= 1u) {
    if (lane < n) { sums[lane] += sums[lane + n]; }
    workgroupBarrier();
  }
  if (lane == 0u) { totals[part_of_row] = vec2<f32>(largest, sums[0]); }
  {% if stride %}
  for (var j = 0u; j < {{ each }}u; j++) { values[j] = wished(values[j], group.y * {{ stride }}u); }
  {% endif %}
  keep_largest(lane);
}
