// As `attention_decode`, of tokens of different rows, whose queries and keys it prepares as `heads` does, and whose keys and values
// it stores. Grid: heads / block, 1, tokens.
{% extends "attention_decode.wgsl" %}
{% set stored_access = "read_write" %}
{% set more = 4 if sinks else 3 %}
{% block functions %}
{% include "decode_store.wgsl" %}
{% endblock %}

{% block token %}
  let t = group.z;
{% endblock %}

{% block prepare %}
{% include "decode_prepare.wgsl" %}
{% endblock %}
