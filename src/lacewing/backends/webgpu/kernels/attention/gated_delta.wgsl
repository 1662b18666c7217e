// Linear attention by the gated delta rule, token by token, from a row's unit on, which it leaves in another unit. A workgroup has
// `columns` columns of a head's state, and `teams` teams that share its rows; a thread keeps `each` rows of a column in registers.
// What the old state gives for k and q is summed over the teams once a token, in one of two places by turns: a barrier a token.
// Grid: heads * blocks of columns, rows of the run.
{% set words = "f32" %}
{% include "step.wgsl" %}
{% include "activations.wgsl" %}
@group(0) @binding(2) var<storage, read_write> units: array<f32>;  // (unit, heads, rows, width)
@group(0) @binding(3) var<storage, read> rate: array<f32>;         // (heads,)
@group(0) @binding(4) var<storage, read> bias: array<f32>;         // (heads,), or (heads, rows) by row

var<workgroup> recalled: array<f32, {{ 2 * teams * columns }}>;  // k @ S of each team's rows, decayed
var<workgroup> asked: array<f32, {{ 2 * teams * columns }}>;     // q @ S
var<workgroup> products: array<vec4<f32>, {{ 2 * teams }}>;      // k.k, q.q, q.k

@compute @workgroup_size({{ columns * teams }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let head = group.x / {{ blocks }}u;
  let team = lane / {{ columns }}u;
  let local = lane % {{ columns }}u;
  let c = group.x % {{ blocks }}u * {{ columns }}u + local;
  let there = c < {{ width }}u;
  {% if tiled %}
  let key_head = head % {{ key_heads }}u;
  {% else %}
  let key_head = head / {{ heads // key_heads }}u;
  {% endif %}
  let first = part_first(group.y);
  let tokens = part_tokens(group.y);
  let row = row_of(first);
  let first_row = team * {{ each }}u;
  let place = (head * {{ rows }}u + first_row) * {{ width }}u + c;  // within a unit
  let before = step[{{ inputs.units_in + fixed_group * inputs.rows }}u + row];
  {% for i in range(each) %}
  var s_{{ i }} = 0.0;
  if (before != 0xFFFFFFFFu && there && first_row + {{ i }}u < {{ rows }}u) {
    s_{{ i }} = units[before * {{ heads * rows * width }}u + place + {{ i * width }}u];
  }
  {% endfor %}
  let speed = {{ "-exp(rate[head])" if log_rate else "rate[head]" }};
  for (var i = 0u; i < tokens; i++) {
    let t = first + i;
    let turn = (i & 1u) * {{ teams }}u;
    let q_at = {{ q.base }}u + t * {{ q.stride }}u + key_head * {{ rows }}u + first_row;
    let k_at = {{ k.base }}u + t * {{ k.stride }}u + key_head * {{ rows }}u + first_row;
    var sums = vec4<f32>(0.0);
    var of_k = 0.0;
    var of_q = 0.0;
    {% if not by_row %}
    let kept = exp(speed * softplus(arena[{{ decay.base }}u + t * {{ decay.stride }}u + head] + bias[head]));
    {% endif %}
    {% for i in range(each) %}
    var k_{{ i }} = 0.0;
    var q_{{ i }} = 0.0;
    if (first_row + {{ i }}u < {{ rows }}u) {
      k_{{ i }} = arena[k_at + {{ i }}u];
      q_{{ i }} = arena[q_at + {{ i }}u];
      {% if by_row %}
      let row_{{ i }} = head * {{ rows }}u + first_row + {{ i }}u;
      s_{{ i }} *= exp(speed * softplus(arena[{{ decay.base }}u + t * {{ decay.stride }}u + row_{{ i }}] + bias[row_{{ i }}]));
      {% else %}
      s_{{ i }} *= kept;
      {% endif %}
    }
    sums += vec4<f32>(k_{{ i }} * k_{{ i }}, q_{{ i }} * q_{{ i }}, q_{{ i }} * k_{{ i }}, 0.0);
    of_k += k_{{ i }} * s_{{ i }};
    of_q += q_{{ i }} * s_{{ i }};
    {% endfor %}
    recalled[(turn + team) * {{ columns }}u + local] = of_k;
    asked[(turn + team) * {{ columns }}u + local] = of_q;
    if (local == 0u) { products[turn + team] = sums; }
    workgroupBarrier();
    of_k = 0.0;
    of_q = 0.0;
    sums = vec4<f32>(0.0);
    for (var other = 0u; other < {{ teams }}u; other++) {
      of_k += recalled[(turn + other) * {{ columns }}u + local];
      of_q += asked[(turn + other) * {{ columns }}u + local];
      sums += products[turn + other];
    }
    let k_size = 1.0 / sqrt(sums.x + {{ number(eps) }});
    let q_size = {{ number(scale) }} / sqrt(sums.y + {{ number(eps) }});
    var u = 0.0;
    if (there) {
      let v = arena[{{ v.base }}u + t * {{ v.stride }}u + head * {{ width }}u + c];
      u = k_size * sigmoid(arena[{{ beta.base }}u + t * {{ beta.stride }}u + head]) * (v - k_size * of_k);
      if (team == 0u) {
        arena[{{ out.base }}u + t * {{ out.stride }}u + head * {{ width }}u + c] = q_size * (of_q + sums.z * u);
      }
    }
    {% for i in range(each) %}
    s_{{ i }} += k_{{ i }} * u;
    {% endfor %}
  }
  let after = step[{{ inputs.units_out + fixed_group * inputs.rows }}u + row];
  {% for i in range(each) %}
  if (there && first_row + {{ i }}u < {{ rows }}u) {
    units[after * {{ heads * rows * width }}u + place + {{ i * width }}u] = s_{{ i }};
  }
  {% endfor %}
}
