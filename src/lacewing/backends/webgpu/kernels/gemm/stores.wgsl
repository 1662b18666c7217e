{# Where the sums of a tile go, one or four rows of a token. #}
fn store_at(place: u32, row: u32, sum: f32) { store_output(place, row, sum); }
{% if fours %}
fn store_four(place: u32, row: u32, sums: vec4<f32>) {
  let whole = row + {{ first_row }}u;
  {% if biased %}
  let y = sums + vec4<f32>(bias[whole], bias[whole + 1u], bias[whole + 2u], bias[whole + 3u]);
  {% else %}
  let y = sums;
  {% endif %}
  {% for out in outs %}
  {{ "else " if not loop.first }}if (whole < {{ out.end }}u) { put_four({{ out.place.base }}u + place * {{ out.place.stride }}u + whole - {{ out.start }}u, y); }
  {% endfor %}
}
{% endif %}
