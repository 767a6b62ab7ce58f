{#
    True for failed attempts that precede the success joined as `success`; for all failed attempts if there is no
    success.
#}
{% macro failed_before(success) -%}
    attempts.outcome = 'failed'
    and (
        {{ success }}.first_succeeded_at is null
        or (
            attempts.resolved_at <= {{ success }}.first_succeeded_at
            and attempts.episode_attempt_number
            < coalesce({{ success }}.succeeded_episode_attempt_number, attempts.episode_attempt_number + 1)
        )
    )
{%- endmacro %}
