// As `attention_decode`, of one token, whose queries and key it prepares as `heads` does, and whose key and value it stores.
// Grid: heads / block, 1, 1.
{% extends "attention_decode.wgsl" %}
{% set stored_access = "read_write" %}
{% set more = 4 if sinks else 3 %}
{% block functions %}
{% include "decode_store.wgsl" %}
{% endblock %}

{% block prepare %}
{% include "decode_prepare.wgsl" %}
{% endblock %}
