{# All of these expressions are true of every row; unknown is not true. One test for many claims: a build has less to do. #}
{% test holds(model, expressions) %}
select * from {{ model }}
where
    {% for expression in expressions %}
    ({{ expression }}) is not true{{ ' or' if not loop.last }}
    {% endfor %}
{% endtest %}
