// As `attention_decode_heads`, with the keys of the token divided over workgroups. Grid: heads / block, splits, 1.
{% extends "attention_decode_split.wgsl" %}
{% set stored_access = "read_write" %}
{% set more = 4 %}
{% block functions %}
{% include "decode_store.wgsl" %}
{% endblock %}

{% block prepare %}
{% include "decode_prepare.wgsl" %}
{% endblock %}
