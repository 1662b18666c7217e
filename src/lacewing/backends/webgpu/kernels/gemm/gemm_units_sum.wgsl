// Adds the parts that gemm_units_split.wgsl has made, always in the same order, so that the same run has the same bits.
// Grid: rows / 4 of a thread, tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set split_binding = 2 %}
{% include "split.wgsl" %}
{% set first = 3 - layout.planes | length %}{# outputs.wgsl counts from the planes, which are not bound here #}
{% include "outputs.wgsl" %}
{% set all_rows = rows %}
{% include "stores.wgsl" %}
{% include "fours.wgsl" %}

@compute @workgroup_size({{ threads }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let place = id.y;
  let row = id.x * 4u;
  if (row >= {{ rows }}u) { return; }
  let blocks = blocks_of({{ "row_count()" if by_rows else "token_count()" }});
  var sum = parts[part_at(0u, blocks, place, row)];
  for (var part = 1u; part < parts_of(blocks); part++) { sum += parts[part_at(part, blocks, place, row)]; }
  store_four(place, row, sum);
}
