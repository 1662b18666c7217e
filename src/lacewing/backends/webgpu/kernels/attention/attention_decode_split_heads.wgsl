// As `attention_decode_heads`, with the keys of a token divided over workgroups. Grid: heads / block, splits, tokens.
{% extends "attention_decode_split.wgsl" %}
{% set stored_access = "read_write" %}
{% set more = 4 %}
{% block pass %}{% endblock %}

{% block functions %}
{% include "decode_store.wgsl" %}
{% endblock %}

{% block token %}
  let i = group.z;
  let t = i;
{% endblock %}

{% block prepare %}
{% include "decode_prepare.wgsl" %}
{% endblock %}
