// The sections of the report. Each has a question, a conclusion, a chart or a table, a caveat, and the SQL of its data.

/** Return a column of a table. `numeric` columns are aligned right. */
function column(label, text, { numeric = false, value = text, html = false } = {}) {
  return { label, text, numeric, value, html };
}

function weighed(selection, row, prefix) {
  return (selection.weight === "count" ? row[`${prefix}_count`] : row[`${prefix}_amount`]) ?? 0;
}

function asText(selection) {
  return selection.weight === "count" ? (value) => plural(value, "payment") : (value) => money(value, selection.currency);
}

function figures(selection) {
  const periods = [0, 30].map((days) => selected("figures", selection).filter((row) => row.days_back === days));
  const text = asText(selection);
  const card = (label, prefix) => {
    const [now, before] = periods.map((rows) => d3.sum(rows, (row) => weighed(selection, row, prefix)));
    return {
      label, value: now, text: text(now), before: `${text(before)} in the 30 days before`,
      note: selection.weight === "count" ? "" : plural(total(periods[0], `${prefix}_count`), "payment"),
    };
  };
  const [rate, rateBefore] = periods.map((rows) => share(total(rows, "matured_recovered_count"), total(rows, "matured_count")));
  const strict = share(total(periods[0], "matured_recovered_strict_count"), total(periods[0], "matured_count"));
  const isKnown = (each) => each !== null && each.trials >= fewest.rate;
  return [
    card("At risk: failed in the last 30 days", "failed"),
    card("Came back in the last 30 days, net", "recovered"),
    {
      label: `Recovery rate within ${windowDays()} days`, value: rate?.rate ?? null,
      text: isKnown(rate) ? percent(rate.rate) : "too few",
      note: isKnown(rate)
        ? `${percent(rate.lower)} to ${percent(rate.upper)} of ${count(rate.trials)} whose window ended; ${percent(strict.rate)} strictly`
        : `${plural(rate?.trials ?? 0, "payment")} whose window ended in the last 30 days`,
      before: isKnown(rateBefore) ? `${percent(rateBefore.rate)} in the 30 days before` : "",
    },
    { ...card("In recovery now", "in_recovery"), before: card("", "in_recovery").before.replace("in the 30 days before", "30 days ago") },
    card("Lost in the last 30 days", "lost"),
  ];
}

function windowDays() {
  return d3.max(rowsOf("accounts"), (row) => row.recovery_window_days) ?? 30;
}

/** Return the sums of each week and outcome. A week is open while the window of one of its payments is not over. */
function weeksSection(selection) {
  const value = selection.weight === "count" ? "payment_count" : "at_risk_amount";
  const sums = d3.flatRollup(selected("weeks", selection), (rows) => total(rows, value), (row) => row.week, (row) => row.outcome);
  const through = d3.min(rowsOf("accounts"), (row) => row.data_through_at);
  const rows = sums.map(([week, outcome, sum]) => ({
    week, outcome, value: sum, text: asText(selection)(sum),
    isOpen: through !== undefined && (new Date(through) - new Date(week)) / 864e5 - 7 < windowDays(),
  })).sort((a, b) => d3.ascending(a.week, b.week));
  const closed = d3.rollups(rows.filter((row) => !row.isOpen), (group) => ({
    all: d3.sum(group, (row) => row.value), back: d3.sum(group.filter((row) => row.outcome === "recovered"), (row) => row.value),
  }), (row) => row.week);
  const last = closed.at(-1);
  return {
    id: "weeks", title: "Is more failing, and does more come back?", datasets: ["weeks"], rows,
    conclusion: last ? `Of what failed in the week of ${day(last[0])}, the last one whose window is over, ${percent(last[1].back / last[1].all, 0)} came back in time.`
      : "No week's recovery window is over yet.",
    caveat: `Weeks begin on Monday. A payment is recovered in time within ${windowDays()} days of its first failure; newer weeks can still change.`,
    legend: outcomes,
    chart: (width, conclusion) => weeksChart(rows, selection, width, conclusion),
    columns: [column("Week", (row) => day(row.week)), column("Outcome", (row) => words(row.outcome)),
      column(selection.weight === "count" ? "Payments" : "At risk", (row) => row.text, { numeric: true, value: (row) => row.value })],
  };
}

/** Pool the cells of a month by day, and return the share recovered with its 95 % interval (Greenwood, Wilson). */
function pooledCurve(cells) {
  const last = d3.max(cells, (cell) => cell.at_risk_counts.length);
  let kept = 1, greenwood = 0;
  return d3.range(last).map((dayNumber) => {
    const atRisk = d3.sum(cells, (cell) => cell.at_risk_counts[dayNumber] ?? 0);
    const recovered = d3.sum(cells, (cell) => cell.recovered_counts[dayNumber] ?? 0);
    kept *= 1 - recovered / Math.max(atRisk, 1);
    if (atRisk > recovered) greenwood += recovered / (atRisk * (atRisk - recovered));
    const rate = 1 - kept, payments = d3.sum(cells, (cell) => cell.payment_count);
    const effective = rate > 0 && rate < 1 && greenwood > 0 ? rate / ((1 - rate) * greenwood) : payments;
    const { lower, upper } = share(rate * payments, payments, effective);
    return { day: dayNumber, rate, lower, upper, payments, atRisk };
  });
}

function curveSection(selection) {
  const groups = d3.groups(selected("curve", selection), (row) => row.cohort_month);
  const months = groups.map(([name, cells]) => ({
    month: name, payments: total(cells, "payment_count"), days: pooledCurve(cells),
    observedDays: d3.min(cells, (cell) => cell.fully_observed_days) - 1,
  })).filter((each) => each.payments >= fewest.rate).sort((a, b) => d3.ascending(a.month, b.month));
  const through = d3.max(rowsOf("accounts"), (row) => row.data_through_at) ?? "";
  const complete = months.filter((each) => d3.timeMonth.offset(new Date(each.month), 1) <= new Date(through)).slice(-12);
  const [before, newest] = [complete.at(-2), complete.at(-1)];
  const rows = complete.flatMap(({ month: name, days }) => days.filter(({ day }) => [1, 3, 7, 14, 30, 45].includes(day)).map((each) => ({ month: name, ...each })));
  const at = (each, dayNumber) => each.days[Math.min(dayNumber, each.days.length - 1)];
  return {
    id: "curve", title: "How fast does it come back?", datasets: ["curve"], rows,
    conclusion: newest ? `${month(newest.month)}: ${percent(at(newest, 7).rate, 0)} came back within 7 days`
      + (before ? `; of ${month(before.month)}, ${percent(at(before, 7).rate, 0)}.` : ".") : "No month has ten failed payments yet.",
    caveat: "Payments, not amounts. From the circle on, not every payment could be observed so long; each counts for as long as it was. The band is a 95 % interval. Months with fewer than ten payments are left out. The number of payments is in brackets.",
    chart: complete.length === 0 ? null : (width, conclusion) => curveChart(complete, width, conclusion, windowDays()),
    columns: [column("Month", (row) => row.month.slice(0, 7)), column("Day", (row) => row.day, { numeric: true }),
      column("Recovered", (row) => percent(row.rate), { numeric: true, value: (row) => row.rate }),
      column("95 % interval", (row) => `${percent(row.lower)} to ${percent(row.upper)}`, { numeric: true, value: (row) => row.lower }),
      column("Payments", (row) => count(row.payments), { numeric: true, value: (row) => row.payments })],
  };
}

function flowSection(selection) {
  const value = selection.weight === "count" ? "payment_count" : "at_risk_amount";
  const rows = selected("flow", selection).map((row) => ({
    reason: words(row.failure_class), retries: row.retries, method: row.method, outcome: words(row.outcome), value: row[value] ?? 0,
  })).filter((row) => row.value > 0);
  const columns = [
    { column: "reason", label: "first failure", order: [] },
    { column: "retries", label: "retries", order: ["no retry", "1 retry", "2 or 3 retries", "4 or more retries"] },
    { column: "method", label: "recovered by", order: ["same instrument retry", "card updated", "new instrument", "authenticated", "method not known", "not recovered"] },
    { column: "outcome", label: "outcome", order: outcomes.map(({ name }) => words(name)) },
  ];
  const sum = d3.sum(rows, (row) => row.value);
  const same = d3.sum(rows.filter((row) => row.method === "same instrument retry"), (row) => row.value);
  const back = d3.sum(rows.filter((row) => row.outcome.startsWith("recovered")), (row) => row.value);
  return {
    id: "flow", title: "What was tried, and what brought it back?", datasets: ["flow"], rows,
    conclusion: back > 0 ? `${percent(same / back, 0)} of what came back did so with the same card or account; for the rest, the customer had to do something.` : "Nothing has come back yet.",
    caveat: "The method is inferred from what Stripe shows about the payment that succeeded. A retry may be the merchant's or the customer's.",
    chart: sum === 0 ? null : (width, conclusion) => flowChart(columns, rows, width, conclusion, asText(selection)),
    columns: [column("First failure", (row) => row.reason), column("Retries", (row) => row.retries), column("Recovered by", (row) => row.method),
      column("Outcome", (row) => row.outcome), column("Value", (row) => asText(selection)(row.value), { numeric: true, value: (row) => row.value })],
  };
}

function reasonsSection(selection) {
  const groups = d3.groups(selected("reasons", selection).filter((row) => row.failed_count > 0), (row) => row.failure_code);
  const rows = groups.map(([code, cells]) => ({
    code, ...cells[0], failed: total(cells, "failed_count"), atRisk: total(cells, "at_risk_amount"),
    share: share(total(cells, "matured_recovered_count"), total(cells, "matured_count")),
  })).sort((a, b) => (selection.weight === "count" ? b.failed - a.failed : b.atRisk - a.atRisk));
  const attempts = total(selected("reasons", selection), "attempt_count"), advised = total(selected("reasons", selection), "advice_code_count");
  const first = rows[0];
  return {
    id: "reasons", title: "Why do payments fail, and what helps?", datasets: ["reasons"], rows, isTableShown: true,
    conclusion: first ? `${sentence(words(first.code))} comes first: ${money(first.atRisk, selection.currency)} in ${plural(first.failed, "payment")}.` : "No payment has failed.",
    caveat: `The rate counts payments whose window is over; none is shown for fewer than ten. ${percent(attempts ? advised / attempts : null, 0)} of the failed attempts carry Stripe's advice code.`,
    columns: [
      column("Reason", (row) => row.code, { html: "code" }), column("Meaning", (row) => row.description ?? "not documented"),
      column("What helps", (row) => words(row.recommended_action)), column("Who can fix it", (row) => words(row.fixed_by)),
      column("Payments", (row) => count(row.failed), { numeric: true, value: (row) => row.failed }),
      column("At risk", (row) => money(row.atRisk, selection.currency), { numeric: true, value: (row) => row.atRisk }),
      column("Recovered", (row) => (row.share === null || row.share.trials < fewest.rate ? "too few" : percent(row.share.rate)),
        { numeric: true, value: (row) => row.share?.rate ?? "", html: "bar" }),
    ],
  };
}

function timingSection(selection) {
  const groups = d3.flatRollup(selected("timing", selection), (cells) => share(total(cells, "succeeded_count"), total(cells, "decided_count")),
    (row) => row.weekday, (row) => row.from_hour);
  const rows = groups.map(([weekday, hour, value]) => ({ weekday, hour, share: value })).sort((a, b) => a.weekday - b.weekday || a.hour - b.hour);
  const large = rows.filter((row) => row.share !== null && row.share.trials >= fewest.cell);
  const best = d3.greatest(large, (row) => row.share.rate);
  const all = share(d3.sum(selected("timing", selection), (row) => row.succeeded_count), d3.sum(selected("timing", selection), (row) => row.decided_count));
  return {
    id: "timing", title: "When do retries go through?", datasets: ["timing"], rows, isHalf: true,
    conclusion: best ? `${weekdays[best.weekday - 1]} ${best.hour} to ${best.hour + 3} h is highest: ${percent(best.share.rate, 0)}; all retries: ${percent(all.rate, 0)}.` : "No time has 20 retries yet.",
    caveat: "By weekday and hour of the retry. A dot marks fewer than 20 retries. The time need not be the cause of a difference: different payments may be retried at different times.",
    chart: rows.length === 0 ? null : (width, conclusion) => heatmapChart(rows, width, conclusion),
    columns: [column("Weekday", (row) => weekdays[row.weekday - 1]), column("Hour", (row) => row.hour, { numeric: true }),
      column("Success", (row) => percent(row.share?.rate ?? null), { numeric: true, value: (row) => row.share?.rate ?? "" }),
      column("Retries", (row) => count(row.share?.trials ?? 0), { numeric: true, value: (row) => row.share?.trials ?? 0 })],
  };
}

function attemptsSection(selection) {
  const groups = d3.groups(selected("timing", selection), (row) => row.attempt_number);
  const rows = groups.map(([attempt, cells]) => ({
    attempt, share: share(total(cells, "succeeded_count"), total(cells, "decided_count")), wasted: total(cells, "wasted_count"), early: total(cells, "too_early_count"),
  })).sort((a, b) => a.attempt - b.attempt);
  const wasted = d3.sum(rows, (row) => row.wasted), early = d3.sum(rows, (row) => row.early);
  const second = rows.find((row) => row.attempt === 2)?.share;
  return {
    id: "attempts", title: "How many attempts are worth it?", datasets: ["timing"], rows, isHalf: true,
    conclusion: second ? `The second attempt succeeds in ${percent(second.rate, 0)} of cases. ${plural(wasted, "retry was", "retries were")} ruled out by an earlier answer; ${plural(early, "came", "came")} too early.` : "Nothing has been retried yet.",
    caveat: "Whiskers are 95 % intervals; the number of retries is in the bar. Later attempts are harder cases, so their success does not say what one more attempt would bring.",
    chart: rows.length === 0 ? null : (width, conclusion) => attemptsChart(rows, width, conclusion),
    columns: [column("Attempt", (row) => (row.attempt === 7 ? "7 and more" : row.attempt), { numeric: true }),
      column("Success", (row) => percent(row.share?.rate ?? null), { numeric: true, value: (row) => row.share?.rate ?? "" }),
      column("Retries", (row) => count(row.share?.trials ?? 0), { numeric: true, value: (row) => row.share?.trials ?? 0 }),
      column("Ruled out before", (row) => count(row.wasted), { numeric: true, value: (row) => row.wasted }),
      column("Too early", (row) => count(row.early), { numeric: true, value: (row) => row.early })],
  };
}

/** Return a bucket of the mart retry_timing as a short label: "6 3 to 5 d" is "3–5 d". */
function shortBucket(text) {
  return text.replace(/^\d+ /, "").replace("under ", "<").replace(" to ", "–").replace(" or more", "+");
}

/** Return the success of retries in the buckets of one dimension of the mart retry_timing. */
function buckets(selection, dimension) {
  const groups = d3.groups(selected("retry_buckets", selection).filter((row) => row.dimension === dimension), (row) => row.bucket_number);
  return groups.sort(([a], [b]) => a - b).map(([, cells]) => ({
    name: dimension === "day_of_month" ? String(cells[0].bucket_number) : shortBucket(cells[0].bucket),
    share: share(total(cells, "succeeded_count"), total(cells, "decided_count")),
  })).filter((row) => row.share !== null);
}

function bucketsSection(selection, { id, title, dimension, label, of, caveat }) {
  const rows = buckets(selection, dimension);
  const best = d3.greatest(rows.filter((row) => row.share.trials >= fewest.cell), (row) => row.share.rate);
  return {
    id, title, datasets: ["retry_buckets"], rows, isHalf: true,
    conclusion: best ? `${sentence(of(best.name))} is highest: ${percent(best.share.rate, 0)} of ${plural(best.share.trials, "retry", "retries")}.` : "No bar has 20 retries yet.",
    caveat: `${caveat} Pale bars have fewer than 20 retries. Whiskers are 95 % intervals. The time need not be the cause of a difference.`,
    chart: rows.length === 0 ? null : (width, conclusion) => bucketsChart(rows, width, conclusion, label),
    columns: [column(sentence(label), (row) => row.name), column("Success", (row) => percent(row.share.rate), { numeric: true, value: (row) => row.share.rate }),
      column("Retries", (row) => count(row.share.trials), { numeric: true, value: (row) => row.share.trials })],
  };
}

function waitedSection(selection) {
  return bucketsSection(selection, {
    id: "waited", title: "How long to wait before a retry?", dimension: "hours_since_previous_attempt", label: "time since the previous attempt",
    of: (name) => `a wait of ${name}`, caveat: "By the time since the previous attempt to collect the same debt.",
  });
}

function daysOfMonthSection(selection) {
  return bucketsSection(selection, {
    id: "days-of-month", title: "Does payday matter?", dimension: "day_of_month", label: "day of the month", of: (name) => `day ${name} of the month`, caveat: "By the day of the retry.",
  });
}

const actions = [
  { name: "retry", label: "Retry now" }, { name: "ask_for_new_card", label: "Ask for another card" }, { name: "ask_to_authenticate", label: "Ask to authenticate" },
  { name: "wait", label: "Wait" }, { name: "stop", label: "Stop" },
];

function actionLabel(name) {
  return actions.find((action) => action.name === name)?.label ?? words(name);
}

function todaySection(selection) {
  const sums = d3.rollup(selected("today_sums", selection), (cells) => ({
    payments: total(cells, "payment_count"), open: total(cells, "open_amount"), expected: total(cells, "expected_amount"),
  }), (row) => row.action);
  const order = actions.map((action) => action.name), asMoney = (amount) => money(amount, selection.currency);
  const rows = selected("today", selection).sort((a, b) => order.indexOf(a.action) - order.indexOf(b.action) || b.expected_recovered_amount - a.expected_recovered_amount);
  const through = d3.min(rowsOf("accounts"), (row) => row.data_through_at);
  const known = order.filter((name) => sums.has(name)), retry = sums.get("retry");
  return {
    id: "today", title: "What to do today?", datasets: ["today_sums", "today"], rows, isTableShown: true,
    conclusion: known.length === 0 ? "Nothing is in recovery." : `${plural(retry?.payments ?? 0, "payment")} may be retried now, worth ${asMoney(retry?.open ?? 0)}; about ${asMoney(retry?.expected ?? 0)} of it is likely to come back.`,
    cards: known.map((name) => ({
      label: actionLabel(name), text: plural(sums.get(name).payments, "payment"), value: sums.get(name).payments,
      note: `${asMoney(sums.get(name).open)} open`, before: name === "stop" ? "" : `${asMoney(sums.get(name).expected)} expected`,
    })),
    caveat: "Recoup never retries a payment. The expected amount is what similar payments brought in the rest of their window, whatever was done about them. At most 50 payments of each action and class are listed.",
    columns: [column("Action", (row) => actionLabel(row.action)), column("Payment", (row) => row.payment_intent_id, { html: "link" }),
      column("Why", (row) => words(row.reason)), column("Last failure", (row) => words(row.failure_code)),
      column("Open", (row) => asMoney(row.open_amount), { numeric: true, value: (row) => row.open_amount }),
      column("Expected", (row) => `${asMoney(row.expected_recovered_amount ?? 0)} (${percent(row.expected_recovery_rate, 0)})`, { numeric: true, value: (row) => row.expected_recovered_amount }),
      column("Attempts", (row) => row.attempt_count, { numeric: true }), column("From", (row) => (row.earliest_at === null ? "" : row.earliest_at <= through ? "now" : shortMinute(row.earliest_at))),
      column("Until", (row) => (row.latest_at === null ? "" : shortMinute(row.latest_at)))],
  };
}

function forecastSection(selection) {
  const kind = selection.weight, text = asText(selection);
  const rows = d3.groups(selected("forecast", selection), (row) => row.days_ahead).sort(([a], [b]) => a - b).map(([dayNumber, cells]) => {
    const stock = total(cells, `stock_${kind}`), expected = total(cells, `expected_${kind}`), variance = total(cells, `${kind}_variance`);
    const [[lower50, upper50], [lower90, upper90]] = [0.674490, 1.644854].map((z) => band(expected, variance, stock, z));
    return { day: dayNumber, stock, expected, lower50, upper50, lower90, upper90, text: text(Math.round(expected)) };
  });
  const last = rows.at(-1), range = (low, high) => `${text(Math.round(low))} to ${text(Math.round(high))}`;
  return {
    id: "forecast", title: "How much will come back?", datasets: ["forecast"], rows, isHalf: true,
    conclusion: last ? `Of ${text(last.stock)} in recovery, ${last.text} will probably come back, in nine of ten cases ${range(last.lower90, last.upper90)}.` : "Nothing is in recovery.",
    caveat: "The bands contain the outcome in 50 and 90 % of cases. New failures are not part of the forecast. The expected sums of “What to do today?” differ a little: they go by the number of attempts, the forecast by days.",
    chart: rows.length === 0 ? null : (width, conclusion) => forecastChart(rows, selection, width, conclusion),
    columns: [column("Day", (row) => row.day, { numeric: true }), column("Expected", (row) => row.text, { numeric: true, value: (row) => row.expected }),
      column("50 % band", (row) => range(row.lower50, row.upper50), { numeric: true, value: (row) => row.lower50 }),
      column("90 % band", (row) => range(row.lower90, row.upper90), { numeric: true, value: (row) => row.lower90 })],
  };
}

/** Show past forecasts account by account: their bands cannot be added up. */
function accuracySection(selection) {
  const kind = selection.weight, text = asText(selection);
  const cells = selected("forecast_accuracy", selection), busiest = d3.greatest(d3.rollups(cells, (rows) => total(rows, "expected_amount"), (row) => row.account_id), ([, sum]) => sum)?.[0];
  const rows = cells.filter((row) => row.account_id === busiest).map((row) => ({
    week: row.as_of_date, expected: row[`expected_${kind}`], lower: row[`${kind}_lower`], upper: row[`${kind}_upper`], actual: row[`recovered_${kind}`],
    isWithin: row[`is_${kind}_within_90`], expectedText: text(Math.round(row[`expected_${kind}`])), actualText: text(row[`recovered_${kind}`]),
  })).sort((a, b) => d3.ascending(a.week, b.week));
  const held = rows.filter((row) => row.isWithin).length;
  return {
    id: "accuracy", title: "How good were past forecasts?", datasets: ["forecast_accuracy"], rows, isHalf: true,
    conclusion: rows.length ? `${held} of the last ${plural(rows.length, "forecast")} for 30 days were right: the outcome was within the 90 % band.` : "No forecast is 30 days old yet.",
    caveat: `For each Monday, the forecast from what was known then (bar: 90 % band, line: expected) and what came back (dot). All classes of first failure${busiest && selection.account === everything && rowsOf("accounts").length > 1 ? `; account ${busiest}` : ""}.`,
    chart: rows.length === 0 ? null : (width, conclusion) => accuracyChart(rows, selection, width, conclusion),
    columns: [column("Monday", (row) => day(row.week)), column("Expected", (row) => row.expectedText, { numeric: true, value: (row) => row.expected }),
      column("90 % band", (row) => `${text(Math.round(row.lower))} to ${text(Math.round(row.upper))}`, { numeric: true, value: (row) => row.lower }),
      column("Came back", (row) => row.actualText, { numeric: true, value: (row) => row.actual })],
  };
}

function waitingSection(selection) {
  const rows = selected("waiting", selection).filter((row) => row.is_open);
  return {
    id: "waiting", title: "Which payments are neither paid nor failed?", datasets: ["waiting"], rows, isTableShown: true,
    conclusion: rows.length ? `${plural(total(rows, "payment_count"), "payment")} worth ${money(total(rows, "amount"), selection.currency)} wait or were abandoned.` : "No payment waits for a customer, a bank or a voucher.",
    caveat: "These payments are in no recovery rate. They are shown for all classes of first failure.",
    columns: [column("Waiting for", (row) => words(row.waiting_for)),
      column("Payments", (row) => count(row.payment_count), { numeric: true, value: (row) => row.payment_count }),
      column("Amount", (row) => money(row.amount ?? 0, selection.currency), { numeric: true, value: (row) => row.amount })],
  };
}

function stockSection(selection) {
  const kind = selection.weight === "count" ? "count" : "amount";
  const groups = d3.groups(selected("stock", selection), (row) => row.week).sort(([a], [b]) => d3.ascending(a, b)).slice(-16);
  const rows = groups.map(([week, cells]) => Object.fromEntries([["week", week],
    ...["opening", "new", "recovered", "expired", "canceled", "closing"].map((name) => [name, total(cells, `${name}_${kind}`)])]));
  const last = rows.at(-1), text = asText(selection);
  return {
    id: "stock", title: "What came in and what left?", datasets: ["stock"], rows,
    conclusion: last ? `${text(last.closing)} are in recovery at the end of the week of ${day(last.week)}; ${text(last.opening)} were at its start.` : "Nothing has been in recovery yet.",
    caveat: "The line is what is in recovery at the end of the week. Opening + new − recovered − expired − canceled = closing. The last week may not be over. Shown for all classes of first failure.",
    chart: rows.length === 0 ? null : (width, conclusion) => stockChart(rows, selection, width, conclusion),
    legend: [{ label: "new", color: "var(--open)" }, { label: "recovered", color: "var(--recovered)" }, { label: "window ended", color: "var(--lost)" }, { label: "canceled", color: "var(--muted)" }],
    columns: [column("Week", (row) => day(row.week)), ...["opening", "new", "recovered", "expired", "canceled", "closing"].map(
      (name) => column(name, (row) => text(row[name]), { numeric: true, value: (row) => row[name] }))],
  };
}

function accountsSection(selection) {
  const cells = rowsOf("curve").filter((row) => row.currency === selection.currency && (selection.class === everything || row.failure_class === selection.class));
  const groups = d3.groups(cells, (row) => row.account_id);
  const rows = groups.flatMap(([account, own], index) => d3.groups(own, (row) => row.cohort_month).map(([name, group]) => {
    const days = pooledCurve(group);
    return { account, month: name, payments: total(group, "payment_count"), rate: days[Math.min(windowDays(), days.length - 1)].rate, index };
  })).filter((row) => row.payments >= fewest.rate);
  return {
    id: "accounts", title: "Which account recovers more?", datasets: ["curve"], rows, isHidden: groups.length < 2,
    conclusion: `${plural(groups.length, "account")} with failed payments in ${selection.currency.toUpperCase()}.`,
    caveat: "The share that came back within the window, by month of the first failure. Months with fewer than ten payments are left out.",
    chart: rows.length === 0 ? null : (width, conclusion) => accountsChart(
      rows.map((row) => ({ ...row, column: row.index % columnsFor(width), row: Math.floor(row.index / columnsFor(width)) })), width, conclusion),
    columns: [column("Account", (row) => row.account, { html: "code" }), column("Month", (row) => row.month.slice(0, 7)),
      column("Recovered", (row) => percent(row.rate), { numeric: true, value: (row) => row.rate }),
      column("Payments", (row) => count(row.payments), { numeric: true, value: (row) => row.payments })],
  };
}

function linksSection(selection) {
  const rows = selected("links", selection);
  return {
    id: "links", title: "How sure are the links between payments?", datasets: ["links"], rows, isTableShown: true, isHalf: true,
    conclusion: rows.length ? `Counting only payments of the same order, the rate is ${percent(d3.min(rows, (row) => row.ratio))}; with all links it is ${percent(d3.max(rows, (row) => row.ratio))}.` : "There is nothing to link yet.",
    caveat: "All currencies, all time. Name the order in the metadata of your PaymentIntents to be less dependent on weaker links.",
    columns: [column("Links used", (row) => words(row.subject)), column("Recovered", (row) => count(row.counted), { numeric: true, value: (row) => row.counted }),
      column("Of", (row) => count(row.out_of), { numeric: true, value: (row) => row.out_of }), column("Rate", (row) => percent(row.ratio), { numeric: true, value: (row) => row.ratio })],
  };
}

function doubleChargesSection(selection) {
  const rows = selected("double_charges", selection);
  return {
    id: "double-charges", title: "Who was probably charged twice?", datasets: ["double_charges"], rows, isTableShown: true, isHalf: true,
    conclusion: rows.length ? `${plural(rows.length, "failed payment")} succeeded more than once.` : "No failed payment succeeded more than once.",
    caveat: "Look at them at Stripe before you refund: two orders of the same amount can look like one that was paid twice. At most 50 are shown.",
    columns: [column("Payment", (row) => row.recovering_payment_intent_id, { html: "code" }), column("Amount", (row) => money(row.at_risk_amount, row.currency), { numeric: true, value: (row) => row.at_risk_amount }),
      column("Certainty of the link", (row) => words(row.link_confidence)), column("First paid", (row) => minute(row.first_succeeded_at))],
  };
}

function coverageSection(selection) {
  const rows = selected("accounts", selection);
  return {
    id: "coverage", title: "How complete are these figures?", datasets: ["accounts"], rows, isTableShown: true,
    conclusion: `${plural(total(rows, "payment_intent_count"), "payment")}, ${plural(total(rows, "attempt_count"), "attempt")}.`,
    caveat: "Failures that made no charge are known from events, which Stripe keeps for 30 days; earlier ones are known only if the payment still showed them.",
    columns: [column("Account", (row) => row.account_id, { html: "code" }), column("Data through", (row) => minute(row.data_through_at)),
      column("Missing permissions", (row) => row.missing_permissions ?? "none"),
      column("Failures without a charge known since", (row) => minute(row.events_known_since_at)),
      column("Contradictions", (row) => count(row.data_issue_count), { numeric: true, value: (row) => row.data_issue_count }),
      column("Not readable", (row) => count(row.quarantined_object_count), { numeric: true, value: (row) => row.quarantined_object_count }),
      column("Card tests", (row) => count(row.card_testing_attempt_count), { numeric: true, value: (row) => row.card_testing_attempt_count })],
  };
}

const sections = [
  weeksSection, todaySection, forecastSection, accuracySection, curveSection, flowSection, reasonsSection, timingSection, attemptsSection,
  waitedSection, daysOfMonthSection, waitingSection, stockSection, accountsSection, linksSection, doubleChargesSection, coverageSection,
];
