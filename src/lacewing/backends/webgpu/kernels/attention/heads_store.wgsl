{# A chain's values on their way into the page; the last part of a row brings zeros to its end. #}
    {% set rows = {"key": kv.keys, "value": kv.values, "index": kv.index}[chain.store] %}
    {% set width = chain.width %}
    {% set padded = rows.chunks * 8 - chain.offset if chain.last else width %}
    {% macro value(c) %}{% if padded > width %}select(0.0, values[min({{ c }}, {{ width - 1 }}u)], {{ c }} < {{ width }}u){% else %}values[{{ c }}]{% endif %}{% endmacro %}
    let to = {{ chain.store }}_word(row_of(t), head, position);
    {% if kv.dtype == "f16" %}
    for (var w = index; w < {{ padded // 2 }}u; w += {{ threads }}u) {
      stored[to + {{ chain.offset // 2 }}u + w] = pack2x16float(vec2<f32>({{ value("w * 2u") }}, {{ value("w * 2u + 1u") }}));
    }
    {% elif kv.dtype == "f32" %}
    for (var w = index; w < {{ padded }}u; w += {{ threads }}u) { stored[to + {{ chain.offset }}u + w] = bitcast<u32>({{ value("w") }}); }
    {% else %}
    // blocks of 32 values, as GGUF's Q8_0 rounds them
    for (var b = index; b < {{ width // 32 }}u; b += {{ threads }}u) {
      var size = 0u;  // compared as integers, a NaN is the largest, and shows
      for (var c = 0u; c < 32u; c++) { size = max(size, bitcast<u32>(values[b * 32u + c]) & 0x7FFFFFFFu); }
      scales[b] = bitcast<f32>(size) / 127.0;
    }
    workgroupBarrier();
    for (var w = index; w < {{ width // 4 }}u; w += {{ threads }}u) {
      let scale = scales[w / 8u];
      let inverse = select(0.0, 1.0 / scale, scale > 0.0);
      let four = vec4<f32>(values[w * 4u], values[w * 4u + 1u], values[w * 4u + 2u], values[w * 4u + 3u]) * inverse;
      stored[to + {{ chain.offset // 4 }}u + w] = pack4xI8(vec4<i32>(trunc(four + sign(four) * 0.5)));
    }
    for (var pair = index; pair < {{ (width // 32 + 1) // 2 }}u; pair += {{ threads }}u) {
      stored[to + {{ rows.value_words + chain.offset // 64 }}u + pair] = pack2x16float(vec2<f32>(scales[pair * 2u], {{ "select(0.0, scales[pair * 2u + 1u], pair * 2u + 1u < %du)" % (width // 32) }}));
    }
    {% endif %}
