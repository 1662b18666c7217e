// out = activation(x @ G.T) * (x @ U.T) for few tokens, as floats and as bytes: a workgroup makes the 32 values of a group, a team
// of threads `team_outs` of them at a time, of G's row and U's. The rows of G stand before those of U.
// Grid: width / 32 (in x and z), tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "activations.wgsl" %}
{% include "dot.wgsl" %}
{% import "team.wgsl" as teams with context %}
{{ teams.declarations() }}
{% set team_count = threads // variant.lanes %}

var<workgroup> made: array<f32, 32>;
var<workgroup> sums: array<i32, 8>;

{% macro part(at) %}
    let xa = arena[x_values + {{ at }} * 2u];
    let xb = arena[x_values + {{ at }} * 2u + 1u];
    let f = arena[x_scales + ({{ at }} >> 1u)];
    let q8_scales = select(f.xy, f.zw, ({{ at }} & 1u) != 0u);
    {% for o in range(team_outs) %}
    let g_{{ o }} = load_group(row_{{ o }} + {{ at }});
    let u_{{ o }} = load_group(row_{{ o }} + {{ width * groups }}u + {{ at }});
    {% endfor %}
    {% for o in range(team_outs) %}
    gate_{{ o }} += dot_group(g_{{ o }}, xa, xb, q8_scales);
    up_{{ o }} += dot_group(u_{{ o }}, xa, xb, q8_scales);
    {% endfor %}
{% endmacro %}

@compute @workgroup_size({{ threads }})
fn main({{ teams.arguments() }}{{ ", @builtin(local_invocation_index) index: u32" if variant.fixed }}) {
{{ teams.start() }}
  let block = group.x + group.z * 65535u;
  let t = group.y;
  let x_values = ({{ x.values.base }}u + t * {{ x.values.stride }}u) / 4u;
  let x_scales = ({{ x.scales.base }}u + t * {{ x.scales.stride }}u) / 4u;
  for (var round_ = 0u; round_ < {{ 32 // (team_count * team_outs) }}u; round_++) {
    let done = (round_ * {{ team_count }}u + team) * {{ team_outs }}u;
    {% for o in range(team_outs) %}
    let row_{{ o }} = min(block * 32u + done + {{ o }}u, {{ width - 1 }}u) * {{ groups }}u;
    var gate_{{ o }} = 0.0;
    var up_{{ o }} = 0.0;
    {% endfor %}
    for (var at = lane; at < {{ groups }}u; at += {{ variant.lanes }}u) {
{{ part("at") }}
    }
    {% for o in range(team_outs) %}
    {{ teams.sum_one("gate_%d" % o) }}
    {{ teams.sum_one("up_%d" % o) }}
    if (lane == 0u) { made[done + {{ o }}u] = {{ activation }}(gate_{{ o }}) * up_{{ o }}; }
    {% endfor %}
  }
  workgroupBarrier();
  if (block >= {{ width // 32 }}u) { return; }
  var largest = 0.0;
  var inverse = 0.0;
  if (index < 8u) {
    var size = 0u;  // compared as integers, a NaN is the largest, and shows
    for (var i = 0u; i < 32u; i++) { size = max(size, bitcast<u32>(made[i]) & 0x7FFFFFFFu); }
    largest = bitcast<f32>(size);
    inverse = select(0.0, 127.0 / largest, largest > 0.0);
    let value = vec4<f32>(made[index * 4u], made[index * 4u + 1u], made[index * 4u + 2u], made[index * 4u + 3u]);
    let quantised = vec4<i32>(round(value * inverse));
    sums[index] = quantised.x + quantised.y + quantised.z + quantised.w;
    arena[({{ out.base }}u + t * {{ out.stride }}u) / 4u + block * 8u + index] = bitcast<vec4<u32>>(value);
    let at = {{ q8.values.base }}u + t * {{ q8.values.stride }}u + block * 8u + index;
    arena[at >> 2u][at & 3u] = pack4xI8(quantised);
  }
  workgroupBarrier();
  if (index == 0u) {
    let halves = vec2<i32>(sums[0] + sums[1] + sums[2] + sums[3], sums[4] + sums[5] + sums[6] + sums[7]);
    let fact = {{ q8.scales.base }}u + t * {{ q8.scales.stride }}u + block * 2u;
    arena[fact >> 2u][fact & 3u] = bitcast<u32>(largest / 127.0);
    arena[fact >> 2u][(fact & 3u) + 1u] = (bitcast<u32>(halves.x) & 0xFFFFu) | (bitcast<u32>(halves.y) << 16u);
  }
}
