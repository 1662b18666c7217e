{# The float16 form (halved.wgsl) of a row t that the workgroup has in registers: v_0 ... of a thread are its fours c_0 ..., zeros behind
   the row's end. Part of a function, which all threads of the workgroup come to. #}
  var size = 0u;
  {% for part in range(parts) %}
  size = max(size, size_of(v_{{ part }}));
  {% endfor %}
  let exponent = row_exponent(index, size);
  let inverse = inverse_of(exponent);
  {% for part in range(parts) %}
  if (c_{{ part }} < {{ halves.words // 2 }}u) { keep_halves(t, c_{{ part }}, v_{{ part }} * inverse); }
  {% endfor %}
  if (index == 0u) { keep_scale(t, exponent); }
