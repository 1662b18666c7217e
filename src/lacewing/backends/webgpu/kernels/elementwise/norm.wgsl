// RMS norm, or LayerNorm if `centred`, of a whole row, with residual add, and the row's bytes and float16 (halved.wgsl) where wanted;
// a thread keeps `parts` vectors of four in registers. Grid: 1, tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% if weighted %}
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
{% endif %}
{% if biased %}
@group(0) @binding({{ 3 if weighted else 2 }}) var<storage, read> bias: array<vec4<f32>>;
{% endif %}
{% if q8 %}
{% include "neighbours.wgsl" %}
{% endif %}
{% include "workgroup_sum.wgsl" %}
{% if halves %}
{% include "halved.wgsl" %}
{% endif %}

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let t = group.y;
  let x = ({{ x.base }}u + t * {{ x.stride }}u) / 4u;
  var sum = 0.0;
  {% for part in range(parts) %}
  let c_{{ part }} = index + {{ part * threads }}u;
  var v_{{ part }} = vec4<f32>(0.0);
  if (c_{{ part }} < {{ width // 4 }}u) {
    v_{{ part }} = bitcast<vec4<f32>>(arena[x + c_{{ part }}]);
    {% if add %}
    v_{{ part }} += {% if scale != 1 %}{{ number(scale) }} * {% endif %}bitcast<vec4<f32>>(arena[({{ add.base }}u + t * {{ add.stride }}u) / 4u + c_{{ part }}]);
    arena[x + c_{{ part }}] = bitcast<vec4<u32>>(v_{{ part }});
    {% endif %}
  }
  sum += dot(v_{{ part }}, {{ "vec4<f32>(1.0)" if centred else "v_%d" % part }});
  {% endfor %}
  {% if centred %}
  let mean = workgroup_sum(index, sum) / {{ number(width) }};
  workgroupBarrier();
  sum = 0.0;
  {% for part in range(parts) %}
  if (c_{{ part }} < {{ width // 4 }}u) { v_{{ part }} -= mean; }
  sum += dot(v_{{ part }}, v_{{ part }});
  {% endfor %}
  {% endif %}
  sum = workgroup_sum(index, sum);
  let factor = 1.0 / sqrt(sum / {{ number(width) }} + {{ number(eps) }});
  {% if q8 %}
  let coded = {{ "token_count() <= %du" % q8_most if q8_most is not none else "true" }};
  {% endif %}
  let out = ({{ out.base }}u + t * {{ out.stride }}u) / 4u;
  {% for part in range(parts) %}
  v_{{ part }} *= factor;
  {% if weighted %}
  v_{{ part }} *= weight[min(c_{{ part }}, {{ width // 4 - 1 }}u)] + {{ number(offset) }};
  {% endif %}
  {% if biased %}
  v_{{ part }} += bias[min(c_{{ part }}, {{ width // 4 - 1 }}u)];
  {% endif %}
  if (c_{{ part }} < {{ width // 4 }}u) { arena[out + c_{{ part }}] = bitcast<vec4<u32>>(v_{{ part }}); }
  {% if q8 %}
  if (coded) { store_four(index, t, c_{{ part }}, v_{{ part }}, c_{{ part }} < {{ width // 4 }}u); }
  {% endif %}
  {% endfor %}
  {% if halves %}
  if (token_count() > {{ halves_above }}u) {
    {% for part in range(parts) %}
    v_{{ part }} = select(vec4<f32>(0.0), v_{{ part }}, c_{{ part }} < {{ width // 4 }}u);
    {% endfor %}
    {% include "halved_row.wgsl" %}
  }
  {% endif %}
}
