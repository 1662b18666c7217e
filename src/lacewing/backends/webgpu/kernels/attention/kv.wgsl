{# Where the KV cache of a state stands, in words of its buffer; see `gpu/pages.py`. #}
fn page_word(row: u32, position: u32) -> u32 { return step[{{ kv.tables }}u + row * {{ kv.table_width }}u + (position >> 7u)] * {{ kv.words }}u; }

fn key_word(row: u32, head: u32, position: u32) -> u32 {
  return page_word(row, position) + (head * 128u + (position & 127u)) * {{ kv.keys.words }}u;
}

{% if kv.values %}
fn value_word(row: u32, head: u32, position: u32) -> u32 {
  return page_word(row, position) + {{ kv.keys.page_words }}u + (head * 128u + (position & 127u)) * {{ kv.values.words }}u;
}
{% else %}
fn value_word(row: u32, head: u32, position: u32) -> u32 { return key_word(row, head, position); }
{% endif %}

{% if kv.index %}
fn index_word(row: u32, head: u32, position: u32) -> u32 {
  return page_word(row, position) + {{ kv.index_words }}u + (position & 127u) * {{ kv.index.words }}u;
}
{% endif %}
