{# What the tile's values add, weighed by `shares`: a thread has every `strands`-th value, eight columns of it. #}
    {% for g in range(block) %}
    a{{ g }} *= shrinks[{{ g }}];
    b{{ g }} *= shrinks[{{ g }}];
    {% endfor %}
    {% if threads % V %}
    if (strand < {{ strands }}u) {
    {% endif %}
    {% macro weigh(e) %}
      {% for u in range(4) %}
      let i{{ u }} = base + {{ u * strands }}u;
      let e{{ u }} = {{ e | replace("#", u) }};
      {% endfor %}
      {% for u in range(4) %}
      {% for g in range(block) %}
      {
        let share = select(0.0, shares[{{ g * tile }}u + min(i{{ u }}, count - 1u)], i{{ u }} < count);
        a{{ g }} += share * e{{ u }}.a;
        b{{ g }} += share * e{{ u }}.b;
      }
      {% endfor %}
      {% endfor %}
    {% endmacro %}
    {% if kv.dtype == "f16" %}
    {
      let base = strand;
{{ weigh("halves(ahead#)") }}
    }
    {% endif %}
    for (var base = strand{{ " + %du" % (4 * strands) if kv.dtype == "f16" }}; base < count; base += {{ 4 * strands }}u) {
{{ weigh("value_eight(value_word(row, key_head, seen_at(t, start + min(i#, count - 1u))), chunk)") }}
    }
    {% if threads % V %}
    }
    {% endif %}
