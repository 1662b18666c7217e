{# The product of a group of weights with a group of activations: whole integers first, then floats. #}
fn dot16(w: vec4<u32>, x: vec4<u32>) -> i32 {
  return dot4I8Packed(w.x, x.x) + dot4I8Packed(w.y, x.y) + dot4I8Packed(w.z, x.z) + dot4I8Packed(w.w, x.w);
}

// q8_scales: the scale of x (float32), and the sums of its first and last 16 codes (two int16)
fn dot_group(w: Group, xa: vec4<u32>, xb: vec4<u32>, q8_scales: vec2<u32>) -> f32 {
  {% if layout.halves %}
  var y = w.scale.x * f32(dot16(w.a, xa)) + w.scale.y * f32(dot16(w.b, xb));
  {% else %}
  var y = w.scale.x * f32(dot16(w.a, xa) + dot16(w.b, xb));
  {% endif %}
  {% if layout.has_min %}
  let sums = vec2<i32>(bitcast<i32>(q8_scales.y << 16u) >> 16u, bitcast<i32>(q8_scales.y) >> 16u);
  {% if layout.halves %}
  y -= w.min.x * f32(sums.x) + w.min.y * f32(sums.y);
  {% else %}
  y -= w.min.x * f32(sums.x + sums.y);
  {% endif %}
  {% endif %}
  return y * bitcast<f32>(q8_scales.x);
}
