{# Where keys and values of a layer stand, in words of its buffer; see `stored.py`. #}
fn key_word(slot: u32, head: u32, position: u32) -> u32 {
  return ((slot * {{ kv.key_heads }}u + head) * {{ kv.context }}u + position) * {{ kv.key_words }}u;
}

{% if kv.values_in_keys %}
fn value_word(slot: u32, head: u32, position: u32) -> u32 { return key_word(slot, head, position); }
{% else %}
fn value_word(slot: u32, head: u32, position: u32) -> u32 {
  return {{ kv.values_from }}u + ((slot * {{ kv.key_heads }}u + head) * {{ kv.context }}u + position) * {{ kv.value_words }}u;
}
{% endif %}
