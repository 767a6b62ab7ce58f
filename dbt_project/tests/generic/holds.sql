{# The expression is true of every row; unknown is not true. #}
{% test holds(model, expression, column_name=none) %}
select * from {{ model }}
where ({{ expression }}) is not true
{% endtest %}
