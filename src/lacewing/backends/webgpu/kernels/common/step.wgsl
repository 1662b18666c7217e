{# Bindings 0 and 1 of every kernel: activations and the inputs of the step. `words`: how the kernel sees the activations. #}
@group(0) @binding(0) var<storage, read_write> arena: array<{{ words }}>;
@group(0) @binding(1) var<storage, {{ step_access | default('read') }}> step: array<u32>;

{% if variant.subgroups and not variant.fixed %}
{# subgroups may be larger than a team #}
fn team_add(value: f32) -> f32 {
  var v = value;
  {% for step in (32, 16, 8, 4, 2, 1) if step < variant.lanes %}
  v += subgroupShuffleXor(v, {{ step }}u);
  {% endfor %}
  return v;
}
fn team_max(value: f32) -> f32 {
  var v = value;
  {% for step in (32, 16, 8, 4, 2, 1) if step < variant.lanes %}
  v = max(v, subgroupShuffleXor(v, {{ step }}u));
  {% endfor %}
  return v;
}
{% endif %}

fn token_count() -> u32 { return step[0]; }
fn row_count() -> u32 { return step[1]; }  // of the logits that this pass makes
fn first_row() -> u32 { return step[2]; }
fn token_of(t: u32) -> u32 { return step[{{ inputs.tokens }}u + t]; }
fn row_of(t: u32) -> u32 { return step[{{ inputs.token_rows }}u + t]; }  // of the block tables
fn position_of(t: u32) -> u32 { return step[{{ inputs.positions }}u + t]; }
fn output_of(r: u32) -> u32 { return step[{{ inputs.outputs }}u + r]; }
fn decode_token(i: u32) -> u32 { return step[{{ inputs.decode }}u + i]; }
fn part_count() -> u32 { return step[4]; }
fn part_first(part: u32) -> u32 { return step[{{ inputs.parts }}u + 2u * part]; }
fn part_tokens(part: u32) -> u32 { return step[{{ inputs.parts + 1 }}u + 2u * part]; }
