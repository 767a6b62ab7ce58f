{#
    The parts of a forecast of recoveries. A step is half a day. Quarters of a day gave the same coverage and cost twice as
    much. DECISIONLOG.md has the reasons and the measured figures.
#}

{# Steps in a day: 2. Windows of more than 90 days have steps of one day, which limits the rows. #}
{% macro forecast_steps_per_day() -%}
    {{ return(2 if checked_var('recovery_window_days') <= 90 else 1) }}
{%- endmacro %}

{# Seconds in a step. #}
{% macro forecast_step_seconds() -%}
    {{ return(86400 // forecast_steps_per_day()) }}
{%- endmacro %}

{# The number of steps in the recovery window. #}
{% macro forecast_step_count() -%}
    {{ return(checked_var('recovery_window_days') * forecast_steps_per_day()) }}
{%- endmacro %}

{# Days after which past forecasts are compared with the outcome. #}
{% macro forecast_horizons() -%}
    {{ return([7, 14, 30]) }}
{%- endmacro %}

{#
    The four ends of the 50 % and 90 % bands of a count or an amount, as columns. Expects <of>_stock, <of>_expected,
    <of>_variance, log_none and log_all.

    The share of the stock that is recovered is taken as normal on the scale arcsin(sqrt(share)), so no band goes below
    nothing or above the stock. Of a stock of few payments, often none or all are recovered. log_none and log_all are
    the logarithms of the probabilities of these two cases. If one of them is likely enough, it is the end of the band.
#}
{% macro forecast_bands(name, of) -%}
    {%- for percent, tail, z in [(50, 0.25, 0.674490), (90, 0.05, 1.644854)] %}
        {{ forecast_band_end(of, '-', tail, z) }} as {{ name }}_lower_{{ percent }},
        {{ forecast_band_end(of, '+', tail, z) }} as {{ name }}_upper_{{ percent }}{{ ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}

{% macro forecast_band_end(of, sign, tail, z) -%}
    {%- set stock, share = of ~ '_stock', 'least(' ~ of ~ '_expected / nullif(' ~ of ~ '_stock, 0), 1)' -%}
    {%- set beyond, within = (tail, 1 - tail) -%}
    cast(round(case
        when coalesce({{ of }}_expected, 0) <= 0 or log_none >= ln({{ beyond if sign == '-' else within }}) then 0
        when {{ share }} >= 1 or log_all >= ln({{ within if sign == '-' else beyond }}) then {{ stock }}
        else {{ stock }} * pow(sin(greatest(0, least(pi() / 2,
            asin(sqrt({{ share }})) {{ sign }} {{ z }} * sqrt({{ of }}_variance)
            / (2 * {{ stock }} * sqrt({{ share }} * (1 - {{ share }})))
        ))), 2)
    end) as bigint)
{%- endmacro %}

{# A sum of fractions that does not depend on the order of the rows. Sums of doubles do, in their last digits. #}
{% macro exact_sum(expression) -%}
    cast(sum(cast({{ expression }} as decimal(38, 8))) as double)
{%- endmacro %}
