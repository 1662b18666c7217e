// As `attention_decode`, with the keys of a token divided over workgroups, whose sums `attention_merge` joins.
// Grid: heads / block, splits, tokens.
{% extends "attention_decode.wgsl" %}
{% block bindings %}
@group(0) @binding(3) var<storage, read_write> parts: array<vec4<f32>>;
{% block pass %}
@group(0) @binding(4) var<storage, read> first_token: array<u32>;  // of this pass, among those that are decoded
{% endblock %}
{% endblock %}

{% block token %}
  let i = group.z;
  let t = {{ "i" if chosen else "decode_token(first_token[0] + i)" }};
{% endblock %}

{% block part %}
  let length = split_length(end - first);
  first += group.y * length;
  if (first >= end) { return; }
  end = min(end, first + length);
{% endblock %}

{% block result scoped %}
    if (on) {
      let at = ((((i * {{ heads }}u) + head + g) * {{ split_most }}u) + group.y) * {{ V4 + 1 }}u;
      parts[at + column] = sum;
      if (column == 0u) { parts[at + {{ V4 }}u] = vec4<f32>(largest[g], totals[g], 0.0, 0.0); }
    }
{% endblock %}

{% block after %}{% endblock %}
