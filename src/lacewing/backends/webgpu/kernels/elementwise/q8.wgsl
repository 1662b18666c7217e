{# Writes a group of activations as bytes; the kernel sees the arena as u32. Scale: largest magnitude / 127, as the CPU does. #}
fn store_q8(t: u32, group: u32, values: ptr<function, array<f32, 32>>) {
  var size = 0u;  // compared as integers, a NaN is the largest, and shows
  for (var i = 0u; i < 32u; i++) { size = max(size, bitcast<u32>((*values)[i]) & 0x7FFFFFFFu); }
  let largest = bitcast<f32>(size);
  let scale = largest / 127.0;
  let inverse = select(0.0, 127.0 / largest, largest > 0.0);
  var sums = vec2<i32>(0);
  let at = {{ q8.values.base }}u + t * {{ q8.values.stride }}u + group * 8u;
  for (var w = 0u; w < 8u; w++) {
    let four = vec4<f32>((*values)[w * 4u], (*values)[w * 4u + 1u], (*values)[w * 4u + 2u], (*values)[w * 4u + 3u]);
    let codes = vec4<i32>(round(four * inverse));
    let sum = codes.x + codes.y + codes.z + codes.w;
    if (w < 4u) { sums.x += sum; } else { sums.y += sum; }
    arena[at + w] = pack4xI8(codes);
  }
  let fact = {{ q8.scales.base }}u + t * {{ q8.scales.stride }}u + group * 2u;
  arena[fact] = bitcast<u32>(scale);
  arena[fact + 1u] = (bitcast<u32>(sums.x) & 0xFFFFu) | (bitcast<u32>(sums.y) << 16u);
}
