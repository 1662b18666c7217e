// A causal convolution of `taps` positions along each column of a row's tokens, from the row's unit on, which it leaves in another
// unit. A thread walks a column of a row's tokens, so out may be x. Grid: width / 64, rows of the run.
{% set words = "f32" %}
{% include "step.wgsl" %}
@group(0) @binding(2) var<storage, read_write> units: array<f32>;  // (unit, taps - 1, width): the last rows of x, oldest first
@group(0) @binding(3) var<storage, read> weight: array<f32>;       // (width, taps)
{% if biased %}
@group(0) @binding(4) var<storage, read> bias: array<f32>;
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
  let d = id.x;
  if (d >= {{ width }}u) { return; }
  let first = part_first(group.y);
  let tokens = part_tokens(group.y);
  let row = row_of(first);
  let before = step[{{ inputs.units_in + fixed_group * inputs.rows }}u + row];
  {% for j in range(taps) %}
  let w_{{ j }} = weight[d * {{ taps }}u + {{ j }}u];
  {% endfor %}
  {% for j in range(taps - 1) %}
  var x_{{ j }} = 0.0;
  if (before != 0xFFFFFFFFu) { x_{{ j }} = units[(before * {{ taps - 1 }}u + {{ j }}u) * {{ width }}u + d]; }
  {% endfor %}
  for (var t = first; t < first + tokens; t++) {
    let x_{{ taps - 1 }} = arena[{{ x.base }}u + t * {{ x.stride }}u + d];
    var sum = 0.0;
    {% for j in range(taps) %}
    sum += w_{{ j }} * x_{{ j }};
    {% endfor %}
    arena[{{ out.base }}u + t * {{ out.stride }}u + d] = sum{{ " + bias[d]" if biased }};
    {% for j in range(taps - 1) %}
    x_{{ j }} = x_{{ j + 1 }};
    {% endfor %}
  }
  let after = step[{{ inputs.units_out + fixed_group * inputs.rows }}u + row];
  {% for j in range(taps - 1) %}
  units[(after * {{ taps - 1 }}u + {{ j }}u) * {{ width }}u + d] = x_{{ j }};
  {% endfor %}
}
