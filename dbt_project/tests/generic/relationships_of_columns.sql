{#
    Fails for rows without a row in `to` that has the same values in these columns. Like dbt's test `relationships`, but
    for several columns, which include account and mode.
#}
{% test relationships_of_columns(model, to, columns) %}
with child as (
    select * from {{ model }}
)
select child.*
from child
where not exists (
    select 1 from {{ to }} as parent
    where {% for column in columns %}parent.{{ column }} = child.{{ column }}{{ ' and ' if not loop.last }}{% endfor %}
)
{% endtest %}
