{# Fails if two rows have the same values in all of these columns. #}
{% test unique_combination(model, columns) %}
{% set combination = columns | join(', ') %}
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
