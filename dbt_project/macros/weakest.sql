{#
    The first of `values` that a group of rows has in a column; `otherwise` if it has none. List the weakest value
    first. The descriptions of link_tier and link_confidence give the order.
#}
{% macro weakest(column, values, otherwise=none) -%}
    case
        {% for value in values %}
            when bool_or({{ column }} = '{{ value }}') then '{{ value }}'
        {% endfor %}
        {% if otherwise %}else '{{ otherwise }}'{% endif %}
    end
{%- endmacro %}
