// 32 values in 18 bytes: a float16 scale, then nibbles, value i and 16 + i in byte i; value = d * (code - 8).
// Nibbles are kept with the top bit turned, which makes them signed; as the upper halves of bytes they are 16 * (code - 8).
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = (run * 8u + i) * 18u;
  for (var w = 0u; w < 4u; w++) { nibbles[group * 4u + w] = word(at + 2u + w * 4u) ^ 0x88888888u; }
  coarse[group >> 1u] = with_half(coarse[group >> 1u], group, half(at));
}
{% else %}
fn group_of(packed: Packed, group: u32) -> Group {
  let q = packed.nibbles;
  let d = float_of(packed.coarse, group) * 0.0625;
  return Group((q << vec4<u32>(4u)) & vec4<u32>(0xF0F0F0F0u), q & vec4<u32>(0xF0F0F0F0u), vec2<f32>(d), vec2<f32>(0.0));
}
{% endif %}
