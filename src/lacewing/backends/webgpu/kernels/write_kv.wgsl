// Keys and values of each token into their slot: one thread two values. Grid: (keys + values) / 128, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}
@group(0) @binding(2) var<storage, read_write> stored: array<u32>;
{% include "kv.wgsl" %}

fn pair_at(at: u32) -> vec2<f32> { return vec2<f32>(arena[at], arena[at + 1u]); }

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x * 2u;
  let slot = slot_of(id.y);
  let position = position_of(id.y);
  if (c < {{ kv.key_heads * kv.key_width }}u) {
    let at = key_word(slot, c / {{ kv.key_width }}u, position) + ((c % {{ kv.key_width }}u){{ " >> 1u" if kv.half }});
    let pair = pair_at({{ k.base }}u + id.y * {{ k.stride }}u + c);
    {% if kv.half %}
    stored[at] = pack2x16float(pair);
    {% else %}
    stored[at] = bitcast<u32>(pair.x);
    stored[at + 1u] = bitcast<u32>(pair.y);
    {% endif %}
  }
  {% if v %}
  else if (c < {{ kv.key_heads * (kv.key_width + kv.value_width) }}u) {
    let d = c - {{ kv.key_heads * kv.key_width }}u;
    let at = value_word(slot, d / {{ kv.value_width }}u, position) + ((d % {{ kv.value_width }}u){{ " >> 1u" if kv.half }});
    let pair = pair_at({{ v.base }}u + id.y * {{ v.stride }}u + d);
    {% if kv.half %}
    stored[at] = pack2x16float(pair);
    {% else %}
    stored[at] = bitcast<u32>(pair.x);
    stored[at + 1u] = bitcast<u32>(pair.y);
    {% endif %}
  }
  {% endif %}
}
