{#
    Payments in recovery are compared with past payments of the same cell: those that were as many days after the first
    failure, and had as many attempts. A cell begins with the given number and ends before the next one.
#}
{% macro day_cells() -%}
    {{ return([0, 1, 2, 3, 4, 7, 14]) }}
{%- endmacro %}

{% macro attempt_cells() -%}
    {{ return([1, 2, 3, 5]) }}
{%- endmacro %}

{# The first number of the cell that contains `value`. #}
{% macro cell_of(value, cells) -%}
    case
        {% for first in cells | reverse if first != cells[0] %}
            when {{ value }} >= {{ first }} then {{ first }}
        {% endfor %}
        else {{ cells[0] }}
    end
{%- endmacro %}

{# The estimate of the coarser cell counts as much as this many payments of the cell itself. #}
{% macro recovery_prior_count() -%}
    {{ return(20) }}
{%- endmacro %}

{# The rate of a cell with `count` payments. The fewer they are, the nearer it is to the rate of the coarser cell. #}
{% macro shrunk_rate(rate, count, coarser_rate) -%}
    ({{ rate }} * {{ count }} + {{ coarser_rate }} * {{ recovery_prior_count() }})
    / ({{ count }} + {{ recovery_prior_count() }})
{%- endmacro %}
