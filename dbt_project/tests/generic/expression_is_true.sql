{#
    Fails for rows for which one of these expressions is false or null. Like dbt_utils.expression_is_true, but for a list
    of expressions: one test for many expressions makes builds faster.
#}
{% test expression_is_true(model, expressions) %}
select * from {{ model }}
where
    {% for expression in expressions %}
    ({{ expression }}) is not true{{ ' or' if not loop.last }}
    {% endfor %}
{% endtest %}
