{# An id that was chosen becomes the next token of its row, one position on; the row's units change their roles. #}
fn feed_back(t: u32, id: u32) {
  step[{{ inputs.chosen }}u + t] = id;
  step[{{ inputs.tokens }}u + t] = min(id, {{ vocabulary - 1 }}u);
  step[{{ inputs.positions }}u + t] += 1u;
  {% if inputs.fixed %}
  let row = step[{{ inputs.token_rows }}u + t];
  for (var g = 0u; g < {{ inputs.fixed }}u; g++) {
    let at = g * {{ inputs.rows }}u + row;
    let before = step[{{ inputs.units_in }}u + at];
    step[{{ inputs.units_in }}u + at] = step[{{ inputs.units_out }}u + at];
    step[{{ inputs.units_out }}u + at] = before;
  }
  {% endif %}
}
