// 256 values in 176 bytes: float16 d and dmin, 12 bytes of scales as in Q4_K, 32 bytes of fifth bits, nibbles as in Q4_K.
// value = d * scale * code - dmin * minimum. `fine` holds scale and minimum of a group as bytes, `coarse` d and dmin.
{% if pack %}
{% include "k_scales.wgsl" %}

fn pack_group(run: u32, i: u32, group: u32) {
  let at = run * 176u;
  let codes = at + 48u + (i >> 1u) * 32u;
  let shift = (i & 1u) * 4u;
  for (var w = 0u; w < 4u; w++) {
    nibbles[group * 4u + w] = nibble_word(word(codes + w * 4u), shift, word(codes + 16u + w * 4u), shift);
  }
  bits[group] = bit_word(at + 16u, i);
  fine[group >> 1u] = with_half(fine[group >> 1u], group, k_scales(at + 4u, i));
  coarse[group >> 3u] = word(at);
}
{% else %}
fn group_of(packed: Packed, group: u32) -> Group {
  let q = packed.nibbles;
  let h = packed.bits;
  let sm = half_of(packed.fine, group);
  let d = unpack2x16float(packed.coarse);
  return Group(low_nibbles(q) | fifth_a(h), high_nibbles(q) | fifth_b(h),
    vec2<f32>(d.x * f32(sm & 0xFFu)), vec2<f32>(d.y * f32((sm >> 8u) & 0xFFu)));
}
{% endif %}
