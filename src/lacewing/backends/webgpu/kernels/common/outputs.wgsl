{# Where the rows of a matrix go: each of `outs` takes so many rows of the whole matrix, of which this shard begins at first_row. #}
{% if biased %}
@group(0) @binding({{ first + layout.planes | length }}) var<storage, read> bias: array<f32>;
{% endif %}
{% if target == "logits" %}
{% include "activations.wgsl" %}
@group(0) @binding({{ first + layout.planes | length + (1 if biased else 0) }}) var<storage, read_write> logits: array<f32>;
{% endif %}

fn store_output(t: u32, shard_row: u32, sum: f32) {
  let row = shard_row + {{ first_row }}u;
  {% if biased %}
  let y = sum + bias[row];
  {% else %}
  let y = sum;
  {% endif %}
  {% if target == "logits" %}
  let scaled = y * {{ number(scale) }};
  {% if softcap %}
  logits[t * {{ vocabulary }}u + row] = {{ number(softcap) }} * steady_tanh(scaled / {{ number(softcap) }});
  {% else %}
  logits[t * {{ vocabulary }}u + row] = scaled;
  {% endif %}
  {% else %}
  {% for out in outs %}
  {{ "else " if not loop.first }}if (row < {{ out.end }}u) { put({{ out.place.base }}u + t * {{ out.place.stride }}u + row - {{ out.start }}u, y); }
  {% endfor %}
  {% endif %}
}

fn put(at: u32, value: f32) {
  {% if words == "f32" %}
  arena[at] = value;
  {% elif words == "u32" %}
  arena[at] = bitcast<u32>(value);
  {% elif words == "vec4<f32>" %}
  arena[at >> 2u][at & 3u] = value;
  {% else %}
  arena[at >> 2u][at & 3u] = bitcast<u32>(value);
  {% endif %}
}
