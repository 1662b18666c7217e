// Mamba-2's scan: a workgroup keeps `columns` columns of a head's state in registers and walks the tokens of a row; `slices` threads
// a column have every `slices`-th of its values each. Grid: blocks of columns, heads, rows of the run.
{% set words = "f32" %}
{% include "step.wgsl" %}
{% include "activations.wgsl" %}
@group(0) @binding(2) var<storage, read_write> units: array<f32>;  // (unit, heads, states, width)
@group(0) @binding(3) var<storage, read> decay: array<f32>;
@group(0) @binding(4) var<storage, read> skip: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
var<workgroup> partial: array<f32, {{ 2 * columns * slices }}>;  // of two tokens by turns, so that one barrier a token is enough

@compute @workgroup_size({{ columns * slices }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let head = group.y;
  let column = index % {{ columns }}u;
  let slice = index / {{ columns }}u;
  let p = group.x * {{ columns }}u + column;
  let there = p < {{ width }}u;
  let place = min(p, {{ width - 1 }}u);
  let first = part_first(group.z);
  let tokens = part_tokens(group.z);
  let row = row_of(first);
  let before = step[{{ inputs.units_in + fixed_group * inputs.rows }}u + row];
  let of_head = head * {{ states * width }}u + place;
  let of_group = (head / {{ heads // groups }}u) * {{ states }}u;
  let a = {{ "-exp(decay[head])" if log_decay else "decay[head]" }};
  {% for j in range(each) %}
  let n_{{ j }} = slice + {{ j * slices }}u;
  var s_{{ j }} = 0.0;
  if (before != 0xFFFFFFFFu && n_{{ j }} < {{ states }}u) {
    s_{{ j }} = units[before * {{ heads * states * width }}u + of_head + n_{{ j }} * {{ width }}u];
  }
  {% endfor %}
  for (var t = first; t < first + tokens; t++) {
    let value = arena[{{ x.base }}u + t * {{ x.stride }}u + head * {{ width }}u + place];
    var time = softplus(arena[{{ dt.base }}u + t * {{ dt.stride }}u + head] + bias[head]);
    {% if low %}
    time = select(time, {{ number(low) }}, time < {{ number(low) }});
    {% endif %}
    {% if high is not none %}
    time = select(time, {{ number(high) }}, time > {{ number(high) }});
    {% endif %}
    let kept = exp(time * a);
    let taken = time * value;
    let b = {{ b.base }}u + t * {{ b.stride }}u + of_group;
    let c = {{ c.base }}u + t * {{ c.stride }}u + of_group;
    var sum = 0.0;
    {% for j in range(each) %}
    {% if (j + 1) * slices > states %}
    if (n_{{ j }} < {{ states }}u) {
      s_{{ j }} = kept * s_{{ j }} + arena[b + n_{{ j }}] * taken;
      sum += arena[c + n_{{ j }}] * s_{{ j }};
    }
    {% else %}
    s_{{ j }} = kept * s_{{ j }} + arena[b + n_{{ j }}] * taken;
    sum += arena[c + n_{{ j }}] * s_{{ j }};
    {% endif %}
    {% endfor %}
    let half = (t & 1u) * {{ columns * slices }}u;
    partial[half + index] = sum;
    workgroupBarrier();
    if (slice == 0u && there) {
      {% for s in range(1, slices) %}
      sum += partial[half + {{ s * columns }}u + column];
      {% endfor %}
      arena[{{ out.base }}u + t * {{ out.stride }}u + head * {{ width }}u + p] = sum + skip[head] * value;
    }
  }
  let after = step[{{ inputs.units_out + fixed_group * inputs.rows }}u + row];
  {% for j in range(each) %}
  if (there && n_{{ j }} < {{ states }}u) {
    units[after * {{ heads * states * width }}u + of_head + n_{{ j }} * {{ width }}u] = s_{{ j }};
  }
  {% endfor %}
}
