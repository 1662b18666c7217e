{# Eight neighbouring threads hold a group of 32 activations, four each: its largest magnitude and its sums, and its codes.
   Constants: `threads` of the workgroup, `q8`. The kernel sees the arena as vec4<u32>, and calls from uniform control flow. #}
{% if variant.subgroups and variant.lanes >= 8 %}
fn largest_of_eight(index: u32, value: u32) -> u32 {
  var v = max(value, subgroupShuffleXor(value, 1u));
  v = max(v, subgroupShuffleXor(v, 2u));
  return max(v, subgroupShuffleXor(v, 4u));
}

// of the first and of the last four threads; right for the first thread of the eight
fn sums_of_eight(index: u32, value: i32) -> vec2<i32> {
  var v = value + subgroupShuffleXor(value, 1u);
  v += subgroupShuffleXor(v, 2u);
  return vec2<i32>(v, subgroupShuffleXor(v, 4u));
}
{% else %}
var<workgroup> eight_sizes: array<u32, {{ threads }}>;
var<workgroup> eight_sums: array<i32, {{ threads }}>;

fn largest_of_eight(index: u32, value: u32) -> u32 {
  workgroupBarrier();
  eight_sizes[index] = value;
  workgroupBarrier();
  var v = 0u;
  for (var i = 0u; i < 8u; i++) { v = max(v, eight_sizes[(index & ~7u) + i]); }
  return v;
}

fn sums_of_eight(index: u32, value: i32) -> vec2<i32> {
  eight_sums[index] = value;
  workgroupBarrier();
  let at = index & ~7u;
  return vec2<i32>(eight_sums[at] + eight_sums[at + 1u] + eight_sums[at + 2u] + eight_sums[at + 3u],
    eight_sums[at + 4u] + eight_sums[at + 5u] + eight_sums[at + 6u] + eight_sums[at + 7u]);
}
{% endif %}

// Thread `index` holds values 4 * four ... of token t; `there`: whether it holds any. The scale is largest / 127, as on the CPU.
fn store_four(index: u32, t: u32, four: u32, values: vec4<f32>, there: bool) {
  let size = bitcast<vec4<u32>>(values) & vec4<u32>(0x7FFFFFFFu);  // compared as integers, a NaN is the largest, and shows
  let largest = bitcast<f32>(largest_of_eight(index, max(max(size.x, size.y), max(size.z, size.w))));
  let inverse = select(0.0, 127.0 / largest, largest > 0.0);
  let quantised = vec4<i32>(round(values * inverse));
  let sums = sums_of_eight(index, quantised.x + quantised.y + quantised.z + quantised.w);
  if (!there) { return; }
  let at = {{ q8.values.base }}u + t * {{ q8.values.stride }}u + four;
  arena[at >> 2u][at & 3u] = pack4xI8(quantised);
  if ((four & 7u) == 0u) {
    let fact = {{ q8.scales.base }}u + t * {{ q8.scales.stride }}u + (four >> 3u) * 2u;
    arena[fact >> 2u][fact & 3u] = bitcast<u32>(largest / 127.0);
    arena[fact >> 2u][(fact & 3u) + 1u] = (bitcast<u32>(sums.x) & 0xFFFFu) | (bitcast<u32>(sums.y) << 16u);
  }
}
