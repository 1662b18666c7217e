{# Four rows of a token: at once where they are four words in one place, else one by one. #}
{% if fours %}
fn put_four(at: u32, y: vec4<f32>) { arena[at >> 2u] = bitcast<vec4<u32>>(y); }
{% else %}
fn store_four(place: u32, row: u32, sums: vec4<f32>) {
  {% for c in "xyzw" %}
  if (row + {{ loop.index0 }}u < {{ all_rows }}u) { store_at(place, row + {{ loop.index0 }}u, sums.{{ c }}); }
  {% endfor %}
}
{% endif %}
