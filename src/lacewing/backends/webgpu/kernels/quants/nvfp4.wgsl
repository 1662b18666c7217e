// 64 four-bit floats in 36 bytes: four unsigned E4M3 scales for 16 values each, then nibbles, 16 values at a time, value l and
// 8 + l in byte l. value = half of the scale * doubled float. `coarse` holds two halves of scales as float16, which is exact.
{% include "e2m1.wgsl" %}

{% if pack %}
// 0x7F counts as 0; bit 7 says nothing
fn half_scale(e4m3: u32) -> u32 {
  let exponent = (e4m3 >> 3u) & 15u;
  let normal = f32((e4m3 & 7u) + 8u) * bitcast<f32>((exponent + 116u) << 23u);  // (8 + fraction) * 2^(exponent - 11)
  let scale = select(normal, f32(e4m3 & 7u) * 0.0009765625, exponent == 0u);
  return pack2x16float(vec2<f32>(select(scale, 0.0, (e4m3 & 0x7Fu) == 0x7Fu), 0.0));
}

fn pack_group(run: u32, i: u32, group: u32) {
  let block = (run * 4u + (i >> 1u)) * 36u;
  let half_run = i & 1u;
  let at = block + 4u + half_run * 16u;  // 16 bytes: values 0 to 15, then 16 to 31
  for (var w = 0u; w < 4u; w++) {
    // values 4w to 4w + 3 of each half: low nibbles of words 0 and 1, then their high nibbles
    let start = (w & 1u) * 4u;
    let shift = (w >> 1u) * 4u;
    nibbles[group * 4u + w] = kept_floats(nibble_word(word(at + start), shift, word(at + 8u + start), shift));
  }
  let scales = half(block + half_run * 2u);
  coarse[group] = half_scale(scales & 0xFFu) | (half_scale(scales >> 8u) << 16u);
}
{% else %}
fn group_of(packed: Packed, group: u32) -> Group {
  let q = packed.nibbles;
  let sizes = sizes_of(q);
  return Group(low_floats(q, sizes), high_floats(q, sizes), unpack2x16float(packed.coarse), vec2<f32>(0.0));
}
{% endif %}
