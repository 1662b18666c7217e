{# What `heads` does, for one token: norms, rotations and scales of the queries and of the new key, in workgroup memory; the workgroup
   whose keys end with the token stores its key and value. #}
{% macro new_value(c) %}
{% if kv.value_width % 8 %}
select(0.0, bitcast<f32>(arena[at + {{ c }}u]), (i * 8u) + {{ c }}u < {{ kv.value_width }}u)
{%- else %}
bitcast<f32>(arena[at + {{ c }}u])
{%- endif %}
{% endmacro %}
  workgroupBarrier();
  {% for q_step, k_step in before.steps %}
  for (var g = team; g < {{ block + 1 }}u; g += {{ threads // variant.lanes }}u) {
    {% for step in (q_step, k_step) %}
    {% if step %}
    if (g {{ "<" if loop.first else "==" }} {{ block }}u) {
      {% if step.kind == "norm" %}
      var sum = 0.0;
      for (var c = lane; c < {{ kv.key_width }}u; c += {{ variant.lanes }}u) { sum += value_of(g, c) * value_of(g, c); }
      let factor = 1.0 / sqrt(({{ variant.add }}(sum) / {{ number(kv.key_width) }}) + {{ number(step.eps) }});
      for (var c = lane; c < {{ kv.key_width }}u; c += {{ variant.lanes }}u) {
        set_value(g, c, value_of(g, c) * factor{% if step.weight is not none %} * (weight{{ step.weight }}[c] + {{ number(step.offset) }}){% endif %});
      }
      {% elif step.kind == "rope" %}
      for (var pair = lane; pair < {{ step.pairs }}u; pair += {{ variant.lanes }}u) {
        let first_of = {{ step.start }}u + {{ "(pair * 2u)" if step.adjacent else "pair" }};
        let second_of = first_of + {{ 1 if step.adjacent else step.pairs }}u;
        let turn = turned(position, frequencies{{ step.table }}[pair]) * {{ number(step.magnitude) }};
        let x = value_of(g, first_of);
        let y = value_of(g, second_of);
        set_value(g, first_of, x * turn.x - y * turn.y);
        set_value(g, second_of, x * turn.y + y * turn.x);
      }
      {% else %}
      let factor = 1.0 + {{ number(step.beta) }} * log(f32(1u + (position + {{ step.offset }}u) / {{ step.length }}u));
      for (var c = lane; c < {{ kv.key_width }}u; c += {{ variant.lanes }}u) { set_value(g, c, value_of(g, c) * factor); }
      {% endif %}
    }
    {% endif %}
    {% endfor %}
  }
  workgroupBarrier();
  {% endfor %}
  if (end == position + 1u) {
    if (index < {{ C }}u) {
      let to = key_word(row, key_head, position);
      store_eight(to, index, Eight(pool[{{ 2 * C * block }}u + index], pool[{{ 2 * C * block + C }}u + index]));
    }
    for (var i = index; i < {{ V }}u; i += {{ threads }}u) {
      let at = {{ before.v.base }}u + (t * {{ before.v.stride }}u) + (key_head * {{ kv.value_width }}u) + (i * 8u);
      let to = value_word(row, key_head, position);
      store_eight(to, i, Eight(vec4<f32>({% for c in range(4) %}{{ new_value(c) }}{{ ", " if not loop.last }}{% endfor %}), vec4<f32>({% for c in range(4, 8) %}{{ new_value(c) }}{{ ", " if not loop.last }}{% endfor %})));
    }
    storageBarrier();
  }
