{#
    Fails for rows for which one of these expressions is false or null. One test for many expressions makes builds
    faster.
#}
{% test holds(model, expressions) %}
select * from {{ model }}
where
    {% for expression in expressions %}
    ({{ expression }}) is not true{{ ' or' if not loop.last }}
    {% endfor %}
{% endtest %}
