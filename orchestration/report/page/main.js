// Build the page from the selection, and again when it or the width changes.

const largestTable = 500;

/** Return an element with attributes and children. Text is never read as HTML. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== false) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function renderHeader() {
  const accounts = rowsOf("accounts"), mode = report.livemode ? "live mode" : "test mode";
  const names = accounts.length > 3 ? plural(accounts.length, "account") : accounts.map((row) => row.account_id).join(", ");
  const through = d3.min(accounts, (row) => row.data_through_at);
  document.getElementById("subtitle").textContent = accounts.length
    ? `${names} (${mode}), data through ${minute(through ?? null)}${through ? ` (${age(through)} ago)` : ""}` : `No account has been synced yet (${mode}).`;
  const warnings = accounts.filter((row) => row.missing_permissions !== null).map(
    (row) => `${row.account_id}: the API key lacks the permission to read ${row.missing_permissions}. Figures that depend on it are not known.`,
  );
  if (report.livemode && through && Date.now() - new Date(through) > 2 * 864e5) warnings.push(`The data are ${age(through)} old. See in Dagster's UI whether the sync runs.`);
  document.getElementById("warnings").replaceChildren(...warnings.map((text) => element("p", { role: "note" }, text)));
}

function renderControls(onChange) {
  const form = document.getElementById("selection");
  form.append(...controls.filter(({ values }) => values.length > 0).map(({ name, label, values }) => {
    const text = { currency: (value) => value.toUpperCase(), account: (value) => value }[name] ?? words;
    const select = element("select", { name, id: `by-${name}` }, ...values.map((value) => element("option", { value }, text(value))));
    select.addEventListener("change", () => onChange({ ...readSelection(), [name]: select.value }));
    return element("label", { for: `by-${name}` }, label, select);
  }));
  form.addEventListener("submit", (event) => event.preventDefault());
}

function updateControls(selection) {
  for (const [name, value] of Object.entries(selection)) {
    const select = document.getElementById(`by-${name}`);
    if (select) select.value = value;
  }
}

function renderFigures(selection) {
  return element("section", { id: "figures", "aria-label": "Five figures" }, renderCards(figures(selection)), renderSql(["figures"]));
}

function renderCards(cards) {
  return element("div", { class: "cards" }, ...cards.map((card) => element(
    "div", { class: "card", "data-value": card.value ?? "" }, element("h3", {}, card.label), element("strong", {}, card.text),
    card.note ? element("p", {}, card.note) : null, card.before ? element("p", {}, card.before) : null,
  )));
}

function renderSection(section) {
  const made = element("section", { id: section.id }, element("h2", {}, section.title), element("p", { class: "conclusion" }, section.conclusion));
  if (section.cards?.length) made.append(renderCards(section.cards));
  if (section.chart) {
    if (section.legend) made.append(element("ul", { class: "legend" }, ...section.legend.map(({ label, color }) => {
      const sample = element("span");
      sample.style.background = color;
      return element("li", {}, sample, label);
    })));
    made.append(element("figure", { "aria-label": section.conclusion }));
  }
  if (section.isTableShown && section.rows.length > 0) made.append(renderTable(section));
  made.append(element("p", { class: "caveat" }, section.caveat));
  if (!section.isTableShown && section.rows.length > 0) made.append(element("details", {}, element("summary", {}, "Show as table"), renderTable(section)));
  made.append(renderSql(section.datasets));
  return made;
}

function renderTable({ columns, rows, title }) {
  const head = element("tr", {}, ...columns.map(({ label, numeric }) => element("th", { scope: "col", class: numeric ? "number" : null }, label)));
  const body = rows.slice(0, largestTable).map((row) => element("tr", {}, ...columns.map((each) => renderCell(each, row))));
  const caption = rows.length > largestTable ? `The first ${largestTable} of ${count(rows.length)} rows` : null;
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${title}` },
    element("table", {}, caption ? element("caption", {}, caption) : null, element("thead", {}, head), element("tbody", {}, ...body)));
}

function renderCell(each, row) {
  const text = String(each.text(row)), value = each.value(row);
  const cell = element("td", { class: each.numeric ? "number" : null, "data-value": value ?? "" });
  if (each.html === "link" && row.dashboard_url) {
    cell.append(element("a", { href: row.dashboard_url, target: "_blank", rel: "noopener noreferrer" }, element("code", {}, text)));
  } else if (each.html === "code" || each.html === "link") cell.append(element("code", {}, text));
  else if (each.html === "bar" && typeof value === "number" && text !== "too few") {
    const bar = element("i");
    bar.style.width = `${100 * value}%`;
    cell.append(element("span", { class: "bar", "aria-hidden": "true" }, bar), text);
  } else cell.append(text);
  return cell;
}

function renderSql(names) {
  return element("details", {}, element("summary", {}, "Show the SQL"),
    ...names.map((name) => element("div", { class: "scroll", tabindex: "0" }, element("pre", {}, report.datasets[name].sql))));
}

function renderCharts(shown) {
  for (const section of shown) {
    const figure = document.querySelector(`#${section.id} figure`);
    if (!figure || !section.chart || figure.clientWidth === 0) continue;
    const svg = section.chart(figure.clientWidth, section.conclusion);
    svg.setAttribute("role", "img");
    figure.replaceChildren(svg);
  }
}

function render(selection) {
  const content = document.getElementById("content");
  if (selection.currency === undefined) {
    content.replaceChildren(element("p", { class: "empty" }, "No payment has failed yet. The report fills as payments fail and come back."));
    return [];
  }
  const shown = sections.map((build) => build(selection)).filter((section) => !section.isHidden);
  const parts = [renderFigures(selection)];
  for (const section of shown) {
    const part = renderSection(section), last = parts.at(-1);
    if (section.isHalf && last.classList.contains("pair") && last.childElementCount < 2) last.append(part);
    else parts.push(section.isHalf ? element("div", { class: "pair" }, part) : part);
  }
  content.replaceChildren(...parts);
  renderCharts(shown);
  return shown;
}

function start() {
  let shown = [];
  const show = (selection) => {
    writeSelection(selection);
    updateControls(selection);
    shown = render(selection);
  };
  renderHeader();
  renderControls(show);
  show(readSelection());
  document.getElementById("footer").textContent = "Amounts of different currencies are never added. Times are UTC; days and hours are in the reporting time zone. "
    + "Charts: Observable Plot and d3 (ISC licence), from pyobsplot (MIT licence).";
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) renderCharts(shown);
    width = innerWidth;
  });
  addEventListener("hashchange", () => show(readSelection()));
  document.documentElement.dataset.ready = "true";
  performance.mark("drawn");
}

start();
