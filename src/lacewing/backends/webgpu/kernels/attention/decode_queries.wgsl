{# Queries of the workgroup's heads into workgroup memory, and behind them the token's new key where the kernel prepares heads:
   of each head the first four values of every eight, then the others. #}
  for (var i = index; i < {{ (block + (1 if before else 0)) * C * 8 }}u; i += {{ threads }}u) {
    let g = i / {{ C * 8 }}u;
    let c = i % {{ C * 8 }}u;
    var value = 0.0;
    {% if kv.key_width % 8 %}
    if (c < {{ kv.key_width }}u) {
    {% endif %}
    var at = {{ q.base }}u + (t * {{ q.stride }}u) + ((head + g) * {{ kv.key_width }}u) + c;
    {% if before %}
    if (g == {{ block }}u) { at = {{ before.k.base }}u + (t * {{ before.k.stride }}u) + (key_head * {{ kv.key_width }}u) + c; }
    {% endif %}
    value = bitcast<f32>(arena[at]);
    {% if kv.key_width % 8 %}
    }
    {% endif %}
    set_value(g, c, value);
  }
