{# The first of `values` (the weakest first) that a group of rows has in a column; `otherwise` if it has none of them. #}
{% macro weakest(column, values, otherwise=none) -%}
    case
        {% for value in values %}
            when bool_or({{ column }} = '{{ value }}') then '{{ value }}'
        {% endfor %}
        {% if otherwise %}else '{{ otherwise }}'{% endif %}
    end
{%- endmacro %}
