// The live dashboard: polls the task's status and metrics once a second and redraws what has changed.
import { API } from "./task.js";

const Plotly = window.Plotly;
const POLL_MS = 1000;
const LATEST = 8;
const KEYBOARD = document.querySelector("nav a[data-page=keyboard]").href;
const $ = (id) => document.getElementById(id);
const rounds = new Map(); // round -> metrics row; a row comes again when its recall has been measured
let since = 0;
let drawn = -1;
let budget; // of privacy: an epsilon, null without one, undefined where no privacy is promised

const percent = (x, digits = 1) => `${(100 * x).toFixed(digits)} %`;
function bytes(n) {
  if (n < 1000) return `${Math.round(n)} B`;
  for (const unit of ["kB", "MB", "GB", "TB"]) {
    n /= 1000;
    if (n < 999.5 || unit === "TB") return `${n < 10 ? n.toFixed(2) : n < 100 ? n.toFixed(1) : Math.round(n)} ${unit}`;
  }
}
const count = (n) => n.toLocaleString("en");
function seconds(s) {
  if (s < 1) return `${Math.round(1000 * s)} ms`;
  if (s < 120) return `${s.toFixed(1)} s`;
  return s < 7200 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
}
function set(id, text) {
  const node = $(id);
  if (node.textContent !== text) node.textContent = text;
}
function element(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
function pairs(id, entries) {
  $(id).replaceChildren(
    ...entries.map(([name, value, title, state]) => {
      const row = element("div", undefined, state ? { "data-state": state } : {});
      row.append(element("dt", name), element("dd", value, title ? { title } : {}));
      return row;
    }),
  );
}

// charts

const style = getComputedStyle(document.documentElement);
const colour = (name) => style.getPropertyValue(`--${name}`).trim();
function layout(more = {}) {
  const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), tickfont: { color: colour("soft"), size: 12 } };
  return {
    margin: { l: 48, r: 8, t: 4, b: 34 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: colour("ink"), size: 13 },
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    showlegend: true,
    legend: { orientation: "h", x: 1, xanchor: "right", y: 1.02, yanchor: "bottom", font: { color: colour("soft") } },
    ...more,
    xaxis: { ...axis, title: { text: "round", font: { color: colour("soft"), size: 12 }, standoff: 6 }, showgrid: false, rangemode: "tozero", ...more.xaxis },
    yaxis: { ...axis, rangemode: "tozero", automargin: true, ...more.yaxis },
  };
}
const config = { displayModeBar: false, responsive: true };
const line = (name, x, y, shade, more = {}) => ({
  name, x, y, type: "scatter", mode: x.length < 40 ? "lines+markers" : "lines",
  line: { color: colour(shade), width: 2.2, ...more.line }, marker: { color: colour(shade), size: 5 },
  ...Object.fromEntries(Object.entries(more).filter(([key]) => key !== "line")),
});
function smooth(values, span) {
  // a running mean over the last `span` rounds: single rounds are a handful of phones
  const out = [];
  let sum = 0;
  values.forEach((value, i) => {
    sum += value - (i >= span ? values[i - span] : 0);
    out.push(sum / Math.min(i + 1, span));
  });
  return out;
}
function running(values) {
  let sum = 0;
  return values.map((value) => (sum += value ?? 0));
}
const closed = (row) => row.round + 1; // how many rounds were closed with this one; their numbers begin at 0
function draw() {
  const rows = [...rounds.values()].sort((a, b) => a.round - b.round);
  const x = rows.map(closed);
  const measured = rows.filter((row) => row.recall_top1 !== null);
  const at = measured.map(closed);
  Plotly.react("chart-recall", [
    line("top-3", at, measured.map((row) => row.recall_top3), "third"),
    line("top-1", at, measured.map((row) => row.recall_top1), "accent"),
  ], layout({ xaxis: { range: measured.length ? undefined : [0, 10] }, yaxis: { tickformat: ".1~%", hoverformat: ".1%" } }), config);

  const trained = rows.filter((row) => row.train_loss !== null);
  const losses = trained.map((row) => row.train_loss);
  const span = Math.max(1, Math.round(losses.length / 25));
  Plotly.react("chart-loss", [
    ...(span > 1 ? [line("each round", trained.map(closed), losses, "accent", { opacity: 0.45, line: { width: 1 }, hoverinfo: "skip" })] : []),
    line(span > 1 ? `mean of ${span}` : "each round", trained.map(closed), smooth(losses, span), "accent"),
  ], layout({ yaxis: { rangemode: "normal", hoverformat: ".3f" } }), config);

  Plotly.react("chart-bytes", [
    line("down", x, running(rows.map((row) => row.downlink_bytes)), "third"),
    line("up", x, running(rows.map((row) => row.uplink_bytes)), "second"),
  ], layout({ yaxis: { ticksuffix: "B", exponentformat: "SI", hoverformat: ".3s" } }), config);

  Plotly.react("chart-reports", [
    line("reports", x, rows.map((row) => row.reports), "accent", { line: { shape: "hv", width: 1.6 } }),
    line("dropped", x, rows.map((row) => row.dropped), "second", { line: { shape: "hv", width: 1.6 } }),
    ...(rows.some((row) => row.refused)
      ? [line("refused", x, rows.map((row) => row.refused ?? 0), "third", { line: { shape: "hv", width: 1.6 } })] : []),
  ], layout({ yaxis: { tickformat: "d", nticks: 6 } }), config);
  drawEpsilon();
}

function drawEpsilon() {
  if (budget === undefined) return;
  const rows = [...rounds.values()].sort((a, b) => a.round - b.round).filter((row) => row.epsilon !== null);
  const x = rows.map(closed);
  const to = x.length ? Math.max(1, x.at(-1)) : 10;
  Plotly.react("chart-epsilon", [
    line("spent", x, rows.map((row) => row.epsilon), "accent", { line: { shape: "hv" } }),
    ...(budget === null ? [] : [line("budget", [0, to], [budget, budget], "second", { mode: "lines", line: { width: 1.6, dash: "dash" } })]),
  ], layout({ xaxis: { range: x.length ? undefined : [0, 10] }, yaxis: { hoverformat: ".3f" } }), config);
}

// figures

// frames, and in brackets what crossed the socket: heads, check-ins and pages too
const both = (frames, socket) => (socket == null ? bytes(frames) : `${bytes(frames)} (${bytes(socket)})`);
function showRows() {
  const rows = [...rounds.values()].sort((a, b) => b.round - a.round);
  const measured = rows.find((row) => row.recall_top1 !== null);
  if (measured) {
    for (const top of ["top1", "top3"]) {
      set(top, percent(measured[`recall_${top}`]));
      set(`${top}-note`, `after ${count(closed(measured))} round${closed(measured) === 1 ? "" : "s"}`);
    }
  }
  const trained = rows.find((row) => row.train_loss !== null);
  if (trained) set("loss", trained.train_loss.toFixed(3));
  if (!rows.length) return;
  $("latest").replaceChildren(
    ...rows.slice(0, LATEST).map((row, i) => {
      const cells = [
        row.round, row.status, row.reports, row.dropped,
        row.train_loss === null ? "–" : row.train_loss.toFixed(3),
        row.recall_top1 === null ? "–" : percent(row.recall_top1),
        both(row.uplink_bytes, row.socket_up_bytes), both(row.downlink_bytes, row.socket_down_bytes), seconds(row.wall_s - (rows[i + 1]?.wall_s ?? 0)),
      ];
      const tr = element("tr");
      tr.append(...cells.map((cell, i) => element("td", String(cell), i === 1 ? { class: row.status } : {})));
      return tr;
    }),
  );
}
const figure = (x) => (x === null ? "–" : Number(x.toPrecision(3)).toString());
function showPrivacy(privacy) {
  $("privacy").hidden = privacy === null;
  budget = privacy?.budget_epsilon;
  if (privacy === null) return;
  const { epsilon } = privacy;
  set("epsilon", epsilon === null ? "no epsilon" : figure(epsilon));
  set("budget", epsilon === null ? "can be claimed: there is too little noise"
    : budget === null ? "epsilon spent, without a budget" : `epsilon spent, of ${figure(budget)}`);
  pairs("spent", [
    ["Delta", privacy.delta.toExponential().replace("e+", "e")],
    ["Rho", figure(privacy.rho)],
    ["Releases", count(privacy.releases)],
  ]);
  set("sentence", privacy.sentence);
}
function showSecure(secure) {
  $("secure").hidden = secure === null;
  if (secure === null) return;
  set("fewest", count(secure.fewest));
  set("unseen", secure.sentence ?? "Phones add the noise themselves; what that is worth stands under Privacy.");
}
const STATES = ["training", "reported", "waiting", "resting"]; // what enrolled phones do in the round in flight
function showStatus(status) {
  const done = status.totals.committed + status.totals.abandoned;
  const finished = status.phase === "finished";
  const held = !finished && status.state !== "open"; // an administrator has paused or stopped it
  $("phase").dataset.phase = held ? status.state : status.phase;
  set("phase", finished ? "finished" : held ? status.state : "learning");
  const over = status.privacy?.spent ? "The privacy budget is spent" : "All rounds are done";
  set("phase-text", finished
    ? (status.settled ? `${over}; the keyboard has the final model.` : `${over}; the last measurement is running.`)
    : [`${status.rule.cohort} reports a round`,
      ...(status.rule.concurrency ? [`at most ${count(status.rule.concurrency)} phones at work`]
        : status.rule.over_selection > 1 ? [`${percent(status.rule.over_selection - 1, 0)} more phones invited`] : []),
      `${status.rule.deadline_s} s to report`,
      ...(status.secure ? ["updates summed unseen"] : [])].join(" · "));
  set("round", String(done));
  set("rounds", count(status.rounds));
  const last = [...rounds.values()].slice(-21);
  set("pace", last.length > 1 ? `${seconds((last.at(-1).wall_s - last[0].wall_s) / (last.length - 1))} a round` : "");
  $("track").firstElementChild.style.width = `${(100 * done) / Math.max(1, status.rounds)}%`;
  $("track").setAttribute("aria-valuemax", status.rounds);
  $("track").setAttribute("aria-valuenow", done);

  showPrivacy(status.privacy);
  showSecure(status.secure);
  const totals = status.totals;
  set("up", totals.reports ? bytes(totals.uplink_bytes / totals.reports) : "–");
  const crossed = (n) => (n === null ? "" : `, ${bytes(n)} at the socket`);
  set("up-note", `${bytes(totals.uplink_bytes)} in ${count(totals.reports)} reports${crossed(totals.socket_up_bytes)}`);
  set("down", bytes(totals.downlink_bytes));
  set("down-note", `models fetched by phones${crossed(totals.socket_down_bytes)}`);

  const { enrolled, dropped, ...phones } = status.phones;
  const stale = [...rounds.values()].at(-1)?.staleness; // in asynchronous rounds
  phones.resting = Math.max(0, enrolled - phones.training - phones.reported - phones.waiting);
  set("enrolled", count(enrolled));
  $("phones").replaceChildren(...STATES.filter((state) => phones[state]).map((state) => {
    const bar = element("i", undefined, { "data-state": state });
    bar.style.flexGrow = phones[state];
    return bar;
  }));
  pairs("phones-legend", [
    ...STATES.map((state) => [state, count(phones[state]), "", state]),
    ["dropped last round", count(dropped), "", "dropped last round"],
    ...(totals.refused ? [["refused reports so far", count(totals.refused), "", "refused"]] : []),
    ...(stale === null || stale === undefined ? [] : [["versions behind, last round's mean", stale.toFixed(1), "", "stale"]]),
  ]);
  const model = status.model;
  pairs("model", [
    ["Version", count(status.version)],
    ["Parameters", count(model.parameters)],
    ["Vocabulary", `${count(model.vocabulary)} words`],
    ["Embedding × cells", `${model.embedding} × ${model.cells}`],
    ["Layout", model.spec.slice(0, 12), model.spec],
    ["Words", model.vocabulary_sha256.slice(0, 12), model.vocabulary_sha256],
  ]);
  const bundle = status.bundle;
  if (bundle) {
    pairs("bundle", [
      ["Committed rounds", bundle.rounds === null ? "–" : count(bundle.rounds)],
      ["Version", bundle.version === null ? "–" : count(bundle.version)],
      ...Object.entries(bundle.precisions).map(([precision, model]) => [
        `model.onnx, ${precision}`, bytes(model.bytes), `sha256 ${model.sha256}`,
      ]),
    ]);
    $("bundle-note").replaceChildren("Runs as ONNX; try it on the ", element("a", "keyboard", { href: KEYBOARD }), ".");
  }
  const failures = Object.entries(status.failures);
  set("failure", failures.length ? `In the background failed: ${failures.map(([kind, text]) => `${kind} (${text})`).join("; ")}` : "");
}

async function json(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return response.json();
}
async function poll() {
  try {
    const [status, metrics] = await Promise.all([json(`${API}/status`), json(`${API}/metrics?since=${since}`)]);
    if (metrics.next < since) rounds.clear(); // another run is served at this address now
    for (const row of metrics.rounds) rounds.set(row.round, row);
    since = metrics.next;
    showStatus(status);
    if (since !== drawn) {
      showRows();
      draw();
      drawn = since;
    }
  } catch (error) {
    $("phase").dataset.phase = "lost";
    set("phase", "no answer");
    set("phase-text", "The server does not answer; trying again.");
  }
  setTimeout(poll, document.hidden ? 5 * POLL_MS : POLL_MS);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
document.addEventListener("visibilitychange", () => { if (!document.hidden && drawn >= 0) draw(); });
draw();
poll();
