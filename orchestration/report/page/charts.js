// The charts. Each returns an SVG that fills the width. Its label, for readers who cannot see it, is the conclusion.

const outcomes = [
  { name: "recovered", label: "recovered in time", color: "var(--recovered)" },
  { name: "recovered_late", label: "recovered late", color: "var(--late)" },
  { name: "in_recovery", label: "in recovery", color: "var(--open)" },
  { name: "lost", label: "lost", color: "var(--lost)" },
];
const fewest = { rate: 10, cell: 20 };

function plot(width, conclusion, options) {
  return Plot.plot({
    width: Math.max(width, 280), ariaLabel: conclusion, marginLeft: 52, marginBottom: 34,
    style: { background: "transparent", color: "var(--text)", fontSize: "12px" }, ...options,
  });
}

function shortNumber(selection) {
  return selection.weight === "count" ? count : (amount) => money(amount, selection.currency, { compact: true });
}

function weeksChart(rows, selection, width, conclusion) {
  const colors = { domain: outcomes.map(({ name }) => name), range: outcomes.map(({ color }) => color) };
  const firstOpen = d3.min(rows.filter((row) => row.isOpen), (row) => row.week);
  const weekCount = new Set(rows.map((row) => row.week)).size;
  return plot(width, conclusion, {
    height: 280, color: colors,
    x: { type: "band", label: null, tickFormat: weekTick, padding: 0.12, ticks: everyFew(rows.map((row) => row.week), width) },
    y: { label: null, grid: true, tickFormat: shortNumber(selection) },
    marks: [
      Plot.barY(rows, {
        x: "week", y: "value", fill: "outcome", order: outcomes.map(({ name }) => name),
        title: (row) => `Week of ${day(row.week)}: ${words(row.outcome)} ${row.text}`, tip: true,
      }),
      ...changeMarks(rows.map((row) => row.week)),
      firstOpen === undefined ? null : Plot.ruleX([firstOpen], {
        x: (week) => week, dx: -(width - 72) / weekCount / 2, stroke: "var(--muted)", strokeDasharray: "2,3",
      }),
      firstOpen === undefined ? null : Plot.text(["window not over"], { frameAnchor: "top-right", dy: -14, text: (text) => text, fill: "var(--muted)" }),
      Plot.ruleY([0], { stroke: "var(--line)" }),
    ],
  });
}

/** Return marks for the changes that the business dated itself (changes.csv), in the weeks of a chart. */
function changeMarks(weeks) {
  const known = new Set(weeks);
  const changes = rowsOf("changes").map((row) => ({ ...row, week: mondayOf(row.date) })).filter((row) => known.has(row.week));
  return [
    Plot.ruleX(changes, { x: "week", stroke: "var(--accent)", strokeDasharray: "4,3" }),
    Plot.text(changes, { x: "week", frameAnchor: "top", text: "label", fill: "var(--accent)", dy: -2, textAnchor: "start", dx: 4, tip: true, title: (row) => `${row.date}: ${row.label}` }),
  ];
}

/** Return the Monday of a date's week, as the datasets have it. */
function mondayOf(date) {
  return d3.utcMonday.floor(new Date(`${date}T00:00:00Z`)).toISOString().slice(0, 10);
}

function weekTick(week) {
  return new Date(week).toLocaleDateString("en", { day: "numeric", month: "short", timeZone: "UTC" });
}

/** Return as many of the values, evenly spaced, as have space for a label. */
function everyFew(values, width) {
  const unique = [...new Set(values)].sort();
  const step = Math.ceil(unique.length / Math.max(1, Math.floor(width / 64)));
  return unique.filter((_, index) => index % step === 0);
}

function curveChart(months, width, conclusion, windowDays) {
  const newest = months.at(-1);
  const points = months.flatMap(({ month, days }) => days.map((each) => ({ month, ...each })));
  const isNewest = (point) => point.month === newest.month;
  return plot(width, conclusion, {
    height: 320, marginRight: 92,
    x: { label: "days since the first failure", domain: [0, 45] },
    y: { label: null, grid: true, percent: true, tickFormat: (value) => `${value} %`, zero: true },
    marks: [
      Plot.ruleX([windowDays], { stroke: "var(--line)", strokeDasharray: "4,3" }),
      Plot.areaY(points.filter(isNewest), { x: "day", y1: "lower", y2: "upper", fill: "var(--band)", curve: "step-after" }),
      Plot.line(points.filter((point) => !isNewest(point)), {
        x: "day", y: "rate", z: "month", stroke: "var(--lost)", curve: "step-after",
      }),
      Plot.line(points.filter(isNewest), { x: "day", y: "rate", stroke: "var(--accent)", strokeWidth: 2.5, curve: "step-after" }),
      Plot.text(spreadLabels(months), {
        x: 45, y: "y", text: (each) => `${each.month.slice(0, 7)} (${each.payments})`, textAnchor: "start", dx: 6,
        fill: (each) => (each.month === newest.month ? "var(--accent)" : "var(--muted)"),
      }),
      newest.observedDays < 45 ? Plot.dot(newest.days.filter((each) => each.day === newest.observedDays), {
        x: "day", y: "rate", stroke: "var(--accent)", fill: "var(--page)", r: 4,
      }) : null,
      Plot.tip(points, Plot.pointer({
        x: "day", y: "rate",
        title: (point) => `${point.month.slice(0, 7)}, day ${point.day}: ${percent(point.rate)} of ${point.payments}`,
      })),
    ],
  });
}

/** Return the months with the height of their labels, moved apart so that none covers another. */
function spreadLabels(months) {
  const gap = 0.032 * Math.max(0.3, d3.max(months, ({ days }) => d3.max(days, (each) => each.upper)));
  const labels = months.map((each) => ({ ...each, y: each.days.at(-1).rate })).sort((a, b) => a.y - b.y);
  labels.forEach((label, index) => {
    if (index > 0) label.y = Math.max(label.y, labels[index - 1].y + gap);
  });
  return labels;
}

/** Return a chart of columns of stacked nodes, with ribbons between them whose height is the value. */
function flowChart(columns, links, width, conclusion, asText) {
  const { nodes, ribbons } = layOutFlow(columns, links);
  const color = (name) => outcomes.find((outcome) => words(outcome.name) === name)?.color ?? "var(--accent)";
  return plot(width, conclusion, {
    height: 340, marginLeft: 8, marginRight: 130, marginTop: 24,
    x: { axis: null, domain: [0, columns.length - 0.95] }, y: { axis: null },
    marks: [
      Plot.areaY(ribbons, {
        x: "x", y1: "y1", y2: "y2", z: "id", fill: (point) => color(point.outcome), fillOpacity: 0.35, curve: "bump-x",
      }),
      Plot.rect(nodes, {
        x1: "x", x2: (node) => node.x + 0.04, y1: "y1", y2: "y2", fill: (node) => color(node.name),
        title: (node) => `${node.name}: ${asText(node.value)}`, tip: true,
      }),
      Plot.text(nodes.filter((node) => node.isLarge), {
        x: (node) => node.x + 0.05, y: (node) => (node.y1 + node.y2) / 2, text: "name", textAnchor: "start",
        stroke: "var(--page)", strokeWidth: 4, fill: "var(--text)",
      }),
      Plot.text(columns, {
        x: (_, index) => index, frameAnchor: "top", dy: -18, text: "label", textAnchor: "start", fill: "var(--muted)",
      }),
    ],
  });
}

function layOutFlow(columns, links) {
  const sum = d3.sum(links, (link) => link.value), gap = 0.02 * sum;
  const nodes = columns.flatMap(({ column, order }, x) => {
    const values = d3.rollup(links, (group) => d3.sum(group, (link) => link.value), (link) => link[column]);
    const names = [...values.keys()].sort((a, b) => order.indexOf(a) - order.indexOf(b) || values.get(b) - values.get(a));
    let top = 0;
    return names.map((name) => {
      const node = { x, column, name, value: values.get(name), y1: top, y2: top + values.get(name) };
      top = node.y2 + gap;
      return { ...node, isLarge: node.value > 0.025 * sum };
    });
  });
  const place = new Map(nodes.map((node) => [`${node.column} ${node.name}`, { left: node.y1, right: node.y1 }]));
  const ribbons = d3.range(columns.length - 1).flatMap((x) => {
    const [from, to] = [columns[x].column, columns[x + 1].column];
    const pairs = d3.flatRollup(
      links, (group) => d3.sum(group, (link) => link.value), (link) => link[from], (link) => link[to], (link) => link.outcome,
    );
    const rank = (column, name) => nodes.findIndex((node) => node.column === column && node.name === name);
    pairs.sort((a, b) => rank(from, a[0]) - rank(from, b[0]) || rank(to, a[1]) - rank(to, b[1]));
    return pairs.flatMap(([source, target, outcome, value], index) => {
      const start = place.get(`${from} ${source}`), end = place.get(`${to} ${target}`);
      const points = [
        { x: x + 0.04, y1: start.right, y2: start.right + value },
        { x: x + 1, y1: end.left, y2: end.left + value },
      ];
      start.right += value;
      end.left += value;
      return points.map((point) => ({ ...point, id: `${x} ${index}`, outcome }));
    });
  });
  return { nodes, ribbons };
}

function forecastChart(days, selection, width, conclusion) {
  return plot(width, conclusion, {
    height: 250,
    x: { label: "days from now" },
    y: { label: null, grid: true, zero: true, tickFormat: shortNumber(selection) },
    marks: [
      Plot.areaY(days, { x: "day", y1: "lower90", y2: "upper90", fill: "var(--band)" }),
      Plot.areaY(days, { x: "day", y1: "lower50", y2: "upper50", fill: "var(--band)" }),
      Plot.line(days, { x: "day", y: "expected", stroke: "var(--accent)", strokeWidth: 2.5 }),
      Plot.tip(days, Plot.pointerX({ x: "day", y: "expected", title: (each) => `In ${plural(each.day, "day")}: ${each.text}` })),
    ],
  });
}

function accuracyChart(rows, selection, width, conclusion) {
  return plot(width, conclusion, {
    height: 250,
    x: { type: "band", label: null, tickFormat: weekTick, padding: 0.4, ticks: everyFew(rows.map((row) => row.week), width) },
    y: { label: null, grid: true, zero: true, tickFormat: shortNumber(selection) },
    marks: [
      Plot.ruleX(rows, { x: "week", y1: "lower", y2: "upper", stroke: "var(--lost)", strokeWidth: 6, strokeLinecap: "round" }),
      Plot.tickY(rows, { x: "week", y: "expected", stroke: "var(--accent)", strokeWidth: 2 }),
      Plot.dot(rows, {
        x: "week", y: "actual", fill: (row) => (row.isWithin ? "var(--recovered)" : "var(--bad)"), r: 4, tip: true,
        title: (row) => `${day(row.week)}: expected ${row.expectedText}, came back ${row.actualText}`,
      }),
    ],
  });
}

/** Return bars of success with 95 % intervals, one for each bucket. */
function bucketsChart(rows, width, conclusion, label) {
  return plot(width, conclusion, {
    height: 220,
    x: { type: "band", label, domain: rows.map((row) => row.name), padding: 0.25, ticks: rows.length > 15 ? rows.map((row) => row.name).filter((_, index) => index % 3 === 0) : undefined },
    y: { label: null, grid: true, percent: true, zero: true, tickFormat: (value) => `${value} %` },
    marks: [
      Plot.barY(rows, {
        x: "name", y: (row) => row.share.rate, fill: "var(--recovered)", fillOpacity: (row) => (row.share.trials < fewest.cell ? 0.35 : 1), tip: true,
        title: (row) => `${row.name}: ${percent(row.share.rate)} of ${plural(row.share.trials, "retry", "retries")} (${percent(row.share.lower)} to ${percent(row.share.upper)})`,
      }),
      Plot.ruleX(rows, { x: "name", y1: (row) => row.share.lower, y2: (row) => row.share.upper, stroke: "var(--text)" }),
    ],
  });
}

const weekdays = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

function heatmapChart(cells, width, conclusion) {
  const known = cells.filter((cell) => cell.share !== null);
  return plot(width, conclusion, {
    height: 250, marginLeft: 44, padding: 0.04,
    x: { type: "band", label: null, tickFormat: (hour) => `${hour}–${hour + 3} h` },
    y: { type: "band", domain: d3.range(1, 8), label: null, tickFormat: (weekday) => weekdays[weekday - 1] },
    color: { type: "linear", domain: [0, Math.max(0.01, d3.max(known, (cell) => cell.share.rate) ?? 1)], range: ["var(--panel)", "var(--recovered)"], interpolate: (a, b) => (t) => `color-mix(in srgb, ${b} ${Math.round(85 * t)}%, ${a})` },
    marks: [
      Plot.cell(known, {
        x: "hour", y: "weekday", fill: (cell) => cell.share.rate, tip: true,
        title: (cell) => `${weekdays[cell.weekday - 1]} ${cell.hour}–${cell.hour + 3} h: ${percent(cell.share.rate)} of ${plural(cell.share.trials, "retry", "retries")}`,
      }),
      Plot.text(known, {
        x: "hour", y: "weekday", fill: "var(--text)",
        text: (cell) => (cell.share.trials < fewest.cell ? "·" : percent(cell.share.rate, 0).replace(" ", "")),
      }),
    ],
  });
}

function attemptsChart(rows, width, conclusion) {
  const shown = rows.filter((row) => row.share !== null);
  return plot(width, conclusion, {
    height: 250,
    x: { type: "band", label: "number of the attempt", tickFormat: (number) => (number === 7 ? "7 and more" : number), padding: 0.35 },
    y: { label: null, grid: true, percent: true, tickFormat: (value) => `${value} %`, zero: true },
    marks: [
      Plot.barY(shown, {
        x: "attempt", y: (row) => row.share.rate, fill: "var(--recovered)",
        title: (row) => `Attempt ${row.attempt}: ${percent(row.share.rate)} of ${count(row.share.trials)} (${percent(row.share.lower)} to ${percent(row.share.upper)})`, tip: true,
      }),
      Plot.ruleX(shown, { x: "attempt", y1: (row) => row.share.lower, y2: (row) => row.share.upper, stroke: "var(--text)" }),
      Plot.text(shown, { x: "attempt", y: 0, dy: -8, text: (row) => count(row.share.trials), fill: "var(--page)", stroke: "var(--recovered)", strokeWidth: 3 }),
    ],
  });
}

function stockChart(rows, selection, width, conclusion) {
  const kinds = [["recovered", "var(--recovered)"], ["expired", "var(--lost)"], ["canceled", "var(--muted)"]];
  const flows = rows.flatMap((row) => [
    { week: row.week, kind: "new", value: row.new },
    ...kinds.map(([kind]) => ({ week: row.week, kind, value: -row[kind] })),
  ]);
  return plot(width, conclusion, {
    height: 260,
    color: { domain: ["new", ...kinds.map(([kind]) => kind)], range: ["var(--open)", ...kinds.map(([, color]) => color)] },
    x: { type: "band", label: null, tickFormat: weekTick, padding: 0.15, ticks: everyFew(rows.map((row) => row.week), width) },
    y: { label: null, grid: true, tickFormat: (value) => shortNumber(selection)(Math.abs(value)) },
    marks: [
      Plot.barY(flows, { x: "week", y: "value", fill: "kind", title: (row) => `Week of ${day(row.week)}: ${row.kind} ${shortNumber(selection)(Math.abs(row.value))}`, tip: true }),
      ...changeMarks(rows.map((row) => row.week)),
      Plot.lineY(rows, { x: "week", y: "closing", stroke: "var(--text)", strokeWidth: 1.5 }),
      Plot.ruleY([0], { stroke: "var(--text)" }),
    ],
  });
}

function accountsChart(rows, width, conclusion) {
  return plot(width, conclusion, {
    height: 140 * Math.ceil(new Set(rows.map((row) => row.account)).size / columnsFor(width)),
    fx: { padding: 0.1, label: null, axis: null }, fy: { axis: null }, y: { percent: true, tickFormat: (value) => `${value} %`, grid: true, label: null },
    x: { type: "band", axis: null },
    marks: [
      Plot.line(rows, { fx: "column", fy: "row", x: "month", y: "rate", z: "account", stroke: "var(--recovered)", strokeWidth: 2 }),
      Plot.text(rows, Plot.selectFirst({ fx: "column", fy: "row", z: "account", text: "account", frameAnchor: "top-left", dy: -10 })),
    ],
  });
}

function columnsFor(width) {
  return Math.max(1, Math.floor(width / 260));
}
