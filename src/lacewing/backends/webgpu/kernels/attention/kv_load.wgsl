{# Eight stored values at a time: `word` is where the row begins, `chunk` which eight of its values. #}
{% set stored_type = "u32" if kv.dtype == "q8_0" else "vec4<u32>" %}
@group(0) @binding(2) var<storage, {{ stored_access | default("read") }}> stored: array<{{ stored_type }}>;

struct Eight {
  a: vec4<f32>,
  b: vec4<f32>,
}

{% if kv.dtype == "f16" %}
fn halves(q: vec4<u32>) -> Eight {
  return Eight(vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y)), vec4<f32>(unpack2x16float(q.z), unpack2x16float(q.w)));
}

fn key_eight(word: u32, chunk: u32) -> Eight { return halves(stored[(word >> 2u) + chunk]); }
fn value_eight(word: u32, chunk: u32) -> Eight { return halves(stored[(word >> 2u) + chunk]); }
{% elif kv.dtype == "f32" %}
fn key_eight(word: u32, chunk: u32) -> Eight {
  let at = (word >> 2u) + (chunk * 2u);
  return Eight(bitcast<vec4<f32>>(stored[at]), bitcast<vec4<f32>>(stored[at + 1u]));
}
fn value_eight(word: u32, chunk: u32) -> Eight { return key_eight(word, chunk); }
{% else %}
// `scales`: words of int8 before the scales of the row
fn scaled(word: u32, chunk: u32, scales: u32) -> Eight {
  let at = word + (chunk * 2u);
  let both = unpack2x16float(stored[word + scales + (chunk >> 3u)]);
  let scale = select(both.x, both.y, (chunk & 4u) != 0u);
  return Eight(vec4<f32>(unpack4xI8(stored[at])) * scale, vec4<f32>(unpack4xI8(stored[at + 1u])) * scale);
}
fn key_eight(word: u32, chunk: u32) -> Eight { return scaled(word, chunk, {{ kv.keys.value_words }}u); }
fn value_eight(word: u32, chunk: u32) -> Eight { return scaled(word, chunk, {{ kv.value_rows.value_words }}u); }
{% endif %}
