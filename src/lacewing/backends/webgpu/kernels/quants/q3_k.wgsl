// 256 values in 110 bytes: 32 bytes of third bits, 64 of lower bit pairs as in Q2_K, 12 of 6-bit scales, a float16 d.
// value = d * (scale - 32) * (code - 4). `fine` holds the two scales of a group, signed. Third bits are kept turned, which
// makes codes signed; as the upper three bits of bytes they are 32 * (code - 4).
{% if pack %}
fn scale_of(at: u32, j: u32) -> u32 {
  let low = (byte(at + (j & 7u)) >> ((j >> 3u) * 4u)) & 15u;
  let high = (byte(at + 8u + (j & 3u)) >> ((j >> 2u) * 2u)) & 3u;
  return ((low | (high << 4u)) - 32u) & 0xFFu;
}

fn pack_group(run: u32, i: u32, group: u32) {
  let at = run * 110u;
  let codes = at + 32u + (i >> 2u) * 32u;
  for (var h = 0u; h < 2u; h++) { pairs[group * 2u + h] = pair_word(codes + h * 16u, (i & 3u) * 2u); }
  bits[group] = ~bit_word(at, i);
  let scales = scale_of(at + 96u, i * 2u) | (scale_of(at + 96u, i * 2u + 1u) << 8u);
  fine[group >> 1u] = with_half(fine[group >> 1u], group, scales);
  coarse[group >> 3u] = half(at + 108u);
}
{% else %}
fn two_bits(p: u32) -> vec4<u32> { return vec4<u32>(p << 5u, p << 3u, p << 1u, p >> 1u) & vec4<u32>(0x60606060u); }

fn group_of(packed: Packed, group: u32) -> Group {
  let p = packed.pairs;
  let h = packed.bits;
  let s = packed.fine;
  let d = unpack2x16float(packed.coarse).x * 0.03125;
  return Group(two_bits(p.x) | top_a(h), two_bits(p.y) | top_b(h),
    d * vec2<f32>(signed_byte(s, group * 2u), signed_byte(s, group * 2u + 1u)), vec2<f32>(0.0));
}
{% endif %}
