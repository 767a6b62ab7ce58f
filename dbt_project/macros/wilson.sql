{#
    Lower and upper end of Wilson's 95 % confidence interval for a share of `count` cases; null without a case. Unlike
    the simple interval (share +- 1.96 standard errors), it stays between 0 and 1 and has a width if the share is 0 or
    1. `count` may be fractional. 1.96 is z, 1.9208 is z^2 / 2, 0.9604 is z^2 / 4, and 3.8416 is z^2.
#}
{% macro wilson_lower(share, count) -%}
    {#- Rounding must neither move the share out of its interval nor the interval out of 0 to 1. -#}
    case when {{ count }} > 0 then greatest(0, least({{ share }}, {{ wilson_end(share, count, '-') }})) end
{%- endmacro %}

{% macro wilson_upper(share, count) -%}
    case when {{ count }} > 0 then least(1, greatest({{ share }}, {{ wilson_end(share, count, '+') }})) end
{%- endmacro %}

{% macro wilson_end(share, count, sign) -%}
    (
        {{ share }} + 1.9208 / cast({{ count }} as double) {{ sign }} 1.96 * sqrt(
            {{ share }} * (1 - {{ share }}) / cast({{ count }} as double)
            + 0.9604 / (cast({{ count }} as double) * cast({{ count }} as double))
        )
    ) / (1 + 3.8416 / cast({{ count }} as double))
{%- endmacro %}
