// RMS norm, or LayerNorm if `centred`, of a row's head of any width, with residual add. Grid: heads, tokens; a workgroup a head.
{% set words = "u32" %}
{% include "step.wgsl" %}
{% if weighted %}
@group(0) @binding(2) var<storage, read> weight: array<f32>;
{% endif %}
{% if biased %}
@group(0) @binding({{ 3 if weighted else 2 }}) var<storage, read> bias: array<f32>;
{% endif %}

{% include "workgroup_sum.wgsl" %}

fn load(at: u32) -> f32 { return bitcast<f32>(arena[at]); }

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = group.y;
  let x = {{ x.base }}u + t * {{ x.stride }}u + group.x * {{ width }}u;
  var sum = 0.0;
  for (var i = lane; i < {{ width }}u; i += {{ threads }}u) {
    {% if add %}
    let v = load(x + i) + {% if scale != 1 %}{{ number(scale) }} * {% endif %}load({{ add.base }}u + t * {{ add.stride }}u + group.x * {{ width }}u + i);
    arena[x + i] = bitcast<u32>(v);
    {% else %}
    let v = load(x + i);
    {% endif %}
    sum += v{{ "" if centred else " * v" }};
  }
  {% if centred %}
  let mean = workgroup_sum(lane, sum) / {{ number(width) }};
  workgroupBarrier();
  sum = 0.0;
  for (var i = lane; i < {{ width }}u; i += {{ threads }}u) {  // what this thread has stored itself
    let v = load(x + i) - mean;
    sum += v * v;
  }
  {% endif %}
  let factor = 1.0 / sqrt(workgroup_sum(lane, sum) / {{ number(width) }} + {{ number(eps) }});
  let out = {{ out.base }}u + t * {{ out.stride }}u + group.x * {{ width }}u;
  for (var c = lane; c < {{ width }}u; c += {{ threads }}u) {
    let v = (load(x + c){{ " - mean" if centred }}) * factor;
    arena[out + c] = bitcast<u32>(v{% if weighted %} * (weight[{{ "group.x * %du + " % width if each }}c] + {{ number(offset) }}){% endif %}{{ " + bias[c]" if biased }});
  }
}
