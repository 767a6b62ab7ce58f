{# True for attempts that failed before the success of their episode that is joined to them as `success`, if there is one. #}
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
