{# Which keys a token sees. `split_most`: splits of a token at most; `alone`: so many keys are one split. #}
fn first_seen(position: u32) -> u32 {
  var first = 0u;
  {% if window %}
  first = u32(max(0, i32(position) - {{ window - 1 }}));
  {% endif %}
  {% if span %}
  first = max(first, (position / {{ span }}u) * {{ span }}u);
  {% endif %}
  return first;
}

{% if chosen %}
// the i-th position that a token sees; of up to {{ most }} all
fn seen_at(t: u32, i: u32) -> u32 {
  if (position_of(t) < {{ most }}u) { return i; }
  return arena[{{ chosen.base }}u + (t * {{ chosen.stride }}u) + i];
}
{% else %}
fn seen_at(t: u32, i: u32) -> u32 { return i; }
{% endif %}

// keys of a split: of the token's own number of keys only, so that its result is the same in any company
fn split_length(seen: u32) -> u32 {
  if (seen <= {{ alone }}u) { return {{ alone }}u; }
  return max({{ split_least }}u, (1u << (32u - countLeadingZeros(seen - 1u))) / {{ split_most }}u);
}
