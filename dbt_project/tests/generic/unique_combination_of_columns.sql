{#
    Fails if two rows have the same values in all of these columns. Like dbt_utils.unique_combination_of_columns; in a
    plan it reads only the rows that new ones may equal.
#}
{% test unique_combination_of_columns(model, combination_of_columns) %}
{% set combination = combination_of_columns | join(', ') %}
select {{ combination }}, count(*) as row_count
{% if is_incremental_tested() %}
from {{ tested_relation() }}
where ({{ combination }}) in (select {{ combination }} from {{ model }})
{% else %}
from {{ model }}
{% endif %}
group by {{ combination }}
having count(*) > 1
{% endtest %}
