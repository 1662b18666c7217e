{# Scores of a tile of `count` keys from `start` on for all heads of the workgroup, into `shares`; `row_lanes` threads share a key. #}
    for (var base = 0u; base < count; base += {{ keys * unroll }}u) {
      {% for u in range(unroll) %}
      let i{{ u }} = base + {{ u * keys }}u + key;
      let k{{ u }} = key_word(row, key_head, seen_at(t, start + min(i{{ u }}, count - 1u)));
      {% for g in range(block) %}
      var s{{ u }}_{{ g }} = 0.0;
      {% endfor %}
      {% endfor %}
      {% macro score(r) %}
      {
        let c = {{ r }} * {{ row_lanes }}u + sub;
        {% for u in range(unroll) %}
        let e{{ u }} = key_eight(k{{ u }}, c);
        {% endfor %}
        {% for g in range(block) %}
        {
          let qa = pool[{{ g * 2 * C }}u + c];
          let qb = pool[{{ g * 2 * C + C }}u + c];
          {% for u in range(unroll) %}
          s{{ u }}_{{ g }} += dot(e{{ u }}.a, qa) + dot(e{{ u }}.b, qb);
          {% endfor %}
        }
        {% endfor %}
      }
      {% endmacro %}
      {% if C // row_lanes <= 12 %}
      {% for r in range(C // row_lanes) %}
      {{ score("%du" % r) }}
      {% endfor %}
      {% else %}
      for (var r = 0u; r < {{ C // row_lanes }}u; r++) {
        {{ score("r") }}
      }
      {% endif %}
      {# sums over the lanes of a row; while there is an even number of heads, each half of the lanes goes on with half of them #}
      {% set state = namespace(names=[], left=block, lanes=row_lanes, round=0) %}
      var mine = 0u;  // the first of the heads that this thread has in the end
      var owner = true;
      {% for u in range(unroll) %}
      {% for g in range(block) %}
      let f{{ u }}_0_{{ g }} = s{{ u }}_{{ g }};
      {% endfor %}
      {% endfor %}
      {% for round in range(8) %}
      {% if state.lanes > 1 %}
      {% set half = state.lanes // 2 %}
      {% if state.left % 2 == 0 %}
      {% set state.left = state.left // 2 %}
      let up{{ round }} = (sub & {{ half }}u) != 0u;
      mine += select(0u, {{ state.left }}u, up{{ round }});
      {% for u in range(unroll) %}
      {% for g in range(state.left) %}
      {% set low = "f%d_%d_%d" % (u, state.round, g) %}
      {% set high = "f%d_%d_%d" % (u, state.round, g + state.left) %}
      let f{{ u }}_{{ state.round + 1 }}_{{ g }} = select({{ low }}, {{ high }}, up{{ round }}) + subgroupShuffleXor(select({{ high }}, {{ low }}, up{{ round }}), {{ half }}u);
      {% endfor %}
      {% endfor %}
      {% else %}
      owner = owner && (sub & {{ half }}u) == 0u;
      {% for u in range(unroll) %}
      {% for g in range(state.left) %}
      let f{{ u }}_{{ state.round + 1 }}_{{ g }} = f{{ u }}_{{ state.round }}_{{ g }} + subgroupShuffleXor(f{{ u }}_{{ state.round }}_{{ g }}, {{ half }}u);
      {% endfor %}
      {% endfor %}
      {% endif %}
      {% set state.lanes = half %}
      {% set state.round = state.round + 1 %}
      {% endif %}
      {% endfor %}
      {% for u in range(unroll) %}
      if (owner && i{{ u }} < count) {
        {% for g in range(state.left) %}
        shares[((mine + {{ g }}u) * {{ tile }}u) + i{{ u }}] = capped(f{{ u }}_{{ state.round }}_{{ g }} * {{ number(scale) }});
        {% endfor %}
      }
      {% endfor %}
    }
