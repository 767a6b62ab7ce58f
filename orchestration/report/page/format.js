// Numbers, money, dates and names as text. All times are UTC.

const report = JSON.parse(document.getElementById("data").textContent);
const exponents = new Map(rowsOf("currencies").map((row) => [row.code, row.exponent]));

/** Return the rows of a dataset as objects. */
function rowsOf(name) {
  const { columns, rows } = report.datasets[name];
  return rows.map((row) => Object.fromEntries(columns.map((column, index) => [column, row[index]])));
}

/** Return an amount of minor units as money, such as "$1,234.50". */
function money(amount, currency, { compact = false } = {}) {
  const exponent = exponents.get(currency) ?? 2;
  const digits = compact ? { maximumFractionDigits: 1, notation: "compact" }
    : { minimumFractionDigits: exponent, maximumFractionDigits: exponent };
  const style = { style: "currency", currency: currency.toUpperCase(), currencyDisplay: "narrowSymbol", ...digits };
  return new Intl.NumberFormat("en", style).format(amount / 10 ** exponent);
}

function count(number) {
  return new Intl.NumberFormat("en").format(number);
}

/** Return a share as a percentage, such as "50.8 %". */
function percent(share, digits = 1) {
  return share === null ? "not known" : `${(100 * share).toFixed(digits)} %`;
}

function day(text) {
  return text.slice(0, 10);
}

function minute(text) {
  return text === null ? "not known" : `${text.slice(0, 10)} ${text.slice(11, 16)} UTC`;
}

/** Return a time without its year and zone, such as "06-30 14:55". */
function shortMinute(text) {
  return `${text.slice(5, 10)} ${text.slice(11, 16)}`;
}

function month(text) {
  return new Date(text).toLocaleDateString("en", { month: "long", year: "numeric", timeZone: "UTC" });
}

/** Return a code or a column's value in words: "authentication_failed" is "authentication failed". */
function words(text) {
  return text === null ? "not known" : String(text).replaceAll("_", " ");
}

function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Return a text that begins with a capital letter. */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Return how long ago a time was, such as "3 hours". */
function age(text) {
  const minutes = Math.max(0, (Date.now() - new Date(text)) / 6e4);
  if (minutes < 90) return plural(Math.round(minutes), "minute");
  if (minutes < 48 * 60) return plural(Math.round(minutes / 60), "hour");
  return plural(Math.round(minutes / 1440), "day");
}
