{# Bindings and functions of `decode_prepare`. `more`: the first free binding. #}
{% for weight in range(before.weights) %}
@group(0) @binding({{ more + weight }}) var<storage, read> weight{{ weight }}: array<f32>;
{% endfor %}
{% for table in range(before.tables) %}
@group(0) @binding({{ more + before.weights + table }}) var<storage, read> frequencies{{ table }}: array<vec2<u32>>;
{% endfor %}
{% include "turn.wgsl" %}


fn store_eight(word: u32, chunk: u32, e: Eight) {
  {% if kv.dtype == "f16" %}
  stored[(word >> 2u) + chunk] = vec4<u32>(pack2x16float(e.a.xy), pack2x16float(e.a.zw), pack2x16float(e.b.xy), pack2x16float(e.b.zw));
  {% else %}
  stored[(word >> 2u) + (chunk * 2u)] = bitcast<vec4<u32>>(e.a);
  stored[(word >> 2u) + (chunk * 2u) + 1u] = bitcast<vec4<u32>>(e.b);
  {% endif %}
}
