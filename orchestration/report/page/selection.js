// What the reader chose: a currency, an account, a class of first failure, and amounts or counts. It is in the URL.

const everything = "all";
const controls = [
  { name: "currency", label: "Currency", values: currenciesByUse() },
  { name: "account", label: "Account", values: [everything, ...rowsOf("accounts").map((row) => row.account_id)] },
  { name: "class", label: "First failure", values: [everything, ...distinct(rowsOf("weeks"), "failure_class")] },
  { name: "weight", label: "Weigh by", values: ["amount", "count"] },
];

/** Return the currencies, the one with the most failed payments first. */
function currenciesByUse() {
  const counts = d3.rollup(rowsOf("weeks"), (rows) => d3.sum(rows, (row) => row.payment_count), (row) => row.currency);
  return [...counts].sort(([, first], [, second]) => second - first).map(([currency]) => currency);
}

function distinct(rows, column) {
  return [...new Set(rows.map((row) => row[column]))].sort();
}

/** Return the selection in the URL. A control that the URL does not name, or with an unknown value, has its first value. */
function readSelection() {
  const named = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(
    controls.map(({ name, values }) => [name, values.includes(named.get(name)) ? named.get(name) : values[0]]),
  );
}

function writeSelection(selection) {
  history.replaceState(null, "", `#${new URLSearchParams(selection)}`);
}

/** Return the rows of a dataset that the selection covers. If a dataset lacks a column, that column does not limit it. */
function selected(name, selection) {
  const limits = [["currency", selection.currency], ["account_id", selection.account], ["failure_class", selection.class]];
  return rowsOf(name).filter((row) => limits.every(
    ([column, value]) => !(column in row) || value === everything || row[column] === value,
  ));
}

/** Return the sum of a column of rows; a missing value counts as 0. */
function total(rows, column) {
  return d3.sum(rows, (row) => row[column] ?? 0);
}

/** Return the band around an expected part of a stock: normal for arcsin(sqrt(share)), as in mart recovery_forecast. */
function band(expected, variance, stock, z) {
  const part = stock > 0 ? expected / stock : 0;
  if (part <= 0 || part >= 1) return [expected, expected];
  const middle = Math.asin(Math.sqrt(part)), spread = z * Math.sqrt(variance) / stock / (2 * Math.sqrt(part * (1 - part)));
  return [Math.max(0, middle - spread), Math.min(Math.PI / 2, middle + spread)].map((angle) => Math.sin(angle) ** 2 * stock);
}

/** Return the share and its 95 % interval (Wilson), or null if there is nothing to divide by. */
function share(successes, trials, effective = trials) {
  if (trials === 0) return null;
  const z = 1.959964, rate = successes / trials, spread = z * z / effective;
  const middle = (rate + spread / 2) / (1 + spread);
  const half = z * Math.sqrt(rate * (1 - rate) / effective + spread / effective / 4) / (1 + spread);
  return { rate, lower: Math.max(0, middle - half), upper: Math.min(1, middle + half), trials };
}
