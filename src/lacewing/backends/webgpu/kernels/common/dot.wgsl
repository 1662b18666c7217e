{# The product of a group of weights with a group of activations: whole integers first, then floats. #}
// An integer added to MAGIC is, read as a float32, 12582912 + it: exact up to 2^22, and much cheaper than a conversion.
const MAGIC: i32 = 0x4B400000;
fn as_float(sum: i32) -> f32 { return bitcast<f32>(sum) - 12582912.0; }

fn dot16(start: i32, w: vec4<u32>, x: vec4<u32>) -> i32 {
  return start + dot4I8Packed(w.x, x.x) + dot4I8Packed(w.y, x.y) + dot4I8Packed(w.z, x.z) + dot4I8Packed(w.w, x.w);
}

// q8_scales: the scale of x (float32), and the sums of its first and last 16 codes (two int16)
fn dot_group(w: Group, xa: vec4<u32>, xb: vec4<u32>, q8_scales: vec2<u32>) -> f32 {
  {% if layout.halves %}
  var y = w.scale.x * as_float(dot16(MAGIC, w.a, xa)) + w.scale.y * as_float(dot16(MAGIC, w.b, xb));
  {% else %}
  var y = w.scale.x * as_float(dot16(dot16(MAGIC, w.a, xa), w.b, xb));
  {% endif %}
  {% if layout.has_min %}
  let sums = vec2<i32>(bitcast<i32>(q8_scales.y << 16u) >> 16u, bitcast<i32>(q8_scales.y) >> 16u);
  {% if layout.halves %}
  y -= w.min.x * as_float(MAGIC + sums.x) + w.min.y * as_float(MAGIC + sums.y);
  {% else %}
  y -= w.min.x * as_float(MAGIC + sums.x + sums.y);
  {% endif %}
  {% endif %}
  return y * bitcast<f32>(q8_scales.x);
}
