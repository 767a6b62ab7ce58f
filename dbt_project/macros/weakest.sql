{#
    Return the first of `values` that a group of rows has in a column; `otherwise` if it has none of them. `values` begin with
    the weakest. The docs of link_tier and link_confidence say why each is weaker than the next.
#}
{% macro weakest(column, values, otherwise=none) -%}
    case
        {% for value in values %}
            when bool_or({{ column }} = '{{ value }}') then '{{ value }}'
        {% endfor %}
        {% if otherwise %}else '{{ otherwise }}'{% endif %}
    end
{%- endmacro %}
