{# Scores of the tile become shares; the sums so far shrink to the new largest score. A team a head. #}
    {% set team_count = threads // variant.lanes %}
    for (var round_ = 0u; round_ < {{ (block + team_count - 1) // team_count }}u; round_++) {
      let g = (round_ * {{ team_count }}u) + team;
      let on = g < {{ block }}u;
      var most = -3.4e38;
      for (var i = lane; on && i < count; i += {{ variant.lanes }}u) { most = max(most, shares[(g * {{ tile }}u) + i]); }
      {{ teams.largest("most") }}
      let before = largest[min(g, {{ block - 1 }}u)];
      let now = max(before, most);
      var sum = 0.0;
      for (var i = lane; on && i < count; i += {{ variant.lanes }}u) {
        let share = exp(shares[(g * {{ tile }}u) + i] - now);
        shares[(g * {{ tile }}u) + i] = share;
        sum += share;
      }
      {{ teams.sum("sum") }}
      if (on && lane == 0u) {
        let shrink = exp(before - now);
        largest[g] = now;
        shrinks[g] = shrink;
        totals[g] = (totals[g] * shrink) + sum;
      }
    }
