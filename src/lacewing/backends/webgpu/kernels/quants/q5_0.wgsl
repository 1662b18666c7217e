// 32 values in 22 bytes: a float16 scale, 32 fifth bits, nibbles as in Q4_0; value = d * (code - 16).
// Fifth bits are kept turned, which makes codes signed; as the upper five bits of bytes they are 8 * (code - 16).
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = (run * 8u + i) * 22u;
  for (var w = 0u; w < 4u; w++) { nibbles[group * 4u + w] = word(at + 6u + w * 4u); }
  bits[group] = ~spread_bits(word(at + 2u));
  coarse[group >> 1u] = with_half(coarse[group >> 1u], group, half(at));
}
{% else %}
fn group_of(packed: Packed, group: u32) -> Group {
  let q = packed.nibbles;
  let h = packed.bits;
  let d = float_of(packed.coarse, group) * 0.125;
  return Group(
    ((q << vec4<u32>(3u)) & vec4<u32>(0x78787878u)) | top_a(h), ((q >> vec4<u32>(1u)) & vec4<u32>(0x78787878u)) | top_b(h),
    vec2<f32>(d), vec2<f32>(0.0));
}
{% endif %}
