"use strict";

const VIEWS = [
  ["fused", "Fused"], ["infrared", "Infrared"], ["visible", "Visible"], ["panels", "Side by side"],
  ["wipe", "Wipe"], ["edges", "Thermal edges"], ["blend", "Blend"], ["check", "Checkerboard"],
];
const TINTS = ["#f2849e", "#7fd1d6", "#e8d44d", "#5aa9e6", "#ff9d4d", "#c9d1d9", "#3fbf7f", "#b58bef"]; // of stages
const HISTORY = 60; // seconds
const CUT = new Set(["wipe", "check"]); // views that are put together here, from the panels
const COLOURED = new Set(["infrared", "blend", "panels", "wipe", "check"]); // in which infrared has a palette
const PALETTES = { inferno: "Inferno", turbo: "Turbo", hot: "Hot", white: "White hot", black: "Black hot" };
const NARROW = 600; // CSS pixels, below which pictures are not beside each other
const SQUARES = 8, SWAP = 900; // of the checkerboard: in a row; milliseconds until they change places
const get = (id) => document.getElementById(id);
const canvas = get("picture"), pen = canvas.getContext("2d");
let view = "fused", shown = "", frames = 0, dead = 0;
let history = [], last = null, saidUntil = 0;

function element(tag, text, ...classes) {
  const made = document.createElement(tag);
  made.textContent = text;
  made.classList.add(...classes.filter(Boolean));
  return made;
}

/* --- the picture: one request after the other, so that a slow connection gets fewer pictures, never old ones */

function draw(image) {
  const panels = view === "panels", stacked = panels && canvas.clientWidth < NARROW;
  const width = CUT.has(view) || stacked ? image.width / 3 : image.width;
  const height = image.height * (stacked ? 3 : 1);
  if (canvas.width !== Math.round(width) || canvas.height !== height) {
    canvas.width = Math.round(width);
    canvas.height = height;
  }
  if (panels) drawPanels(image, stacked);
  else if (view === "check") drawSquares(image, width);
  else if (view === "wipe") drawWipe(image, width);
  else pen.drawImage(image, 0, 0);
}

/* The three pictures beside each other, or below each other on a phone, with their names. */
function drawPanels(image, stacked) {
  const [w, h] = [image.width / 3, image.height], size = Math.max(12, Math.round(w / 28));
  pen.font = `600 ${size}px system-ui, sans-serif`;
  ["fused", "visible", "infrared"].forEach((name, i) => {
    const [x, y] = stacked ? [0, i * h] : [i * w, 0];
    pen.drawImage(image, i * w, 0, w, h, x, y, w, h);
    pen.fillStyle = "#000a";
    pen.fillRect(x, y, pen.measureText(name).width + size, size * 1.6);
    pen.fillStyle = "#fff";
    pen.fillText(name, x + size / 2, y + size * 1.15);
  });
}

function drawWipe(image, width) {
  const edge = Math.round(width * get("edge").value / 100), side = width * Number(get("other").value);
  pen.drawImage(image, 0, 0, width, image.height, 0, 0, width, image.height);
  if (edge < width) {
    pen.drawImage(image, side + edge, 0, width - edge, image.height, edge, 0, width - edge, image.height);
  }
  pen.fillStyle = "#ff9d4d";
  pen.fillRect(edge - 1, 0, 2, image.height);
}

/* Squares of visible and infrared that change places: where edges jump, the alignment is off. */
function drawSquares(image, width) {
  const side = Math.ceil(width / SQUARES), swap = Math.floor(performance.now() / SWAP) % 2;
  pen.drawImage(image, width, 0, width, image.height, 0, 0, width, image.height);
  for (let y = 0; y < image.height; y += side) {
    for (let x = ((y / side + swap) % 2) * side; x < width; x += 2 * side) {
      const [w, h] = [Math.min(side, width - x), Math.min(side, image.height - y)];
      pen.drawImage(image, 2 * width + x, y, w, h, x, y, w, h);
    }
  }
}

async function play() {
  for (;;) {
    const width = Math.min(1920, Math.round(canvas.clientWidth * Math.min(devicePixelRatio, 2)) || 640);
    const each = view === "panels" && canvas.clientWidth >= NARROW ? Math.round(width / 3) : width;
    try {
      const asked = view;
      const answer = await fetch(`${pictureOf(asked, each)}&after=${shown}`);
      if (answer.status === 200) {
        const image = await createImageBitmap(await answer.blob());
        if (asked === view) { // else another one was chosen meanwhile
          shown = answer.headers.get("X-Frame");
          draw(image);
        }
        image.close();
        frames += 1;
        canvas.dataset.frames = frames;
      } else if (answer.status !== 204) {
        await pause(500);
      }
    } catch {
      await pause(500);
    }
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

const pictureOf = (name, width) =>
  `snapshot.jpg?view=${CUT.has(name) ? "panels" : name}&palette=${get("palette").value}&width=${width}`;

function choose(name) {
  view = name;
  shown = "";
  get("wipe").hidden = name !== "wipe";
  get("colours").hidden = !COLOURED.has(name);
  for (const button of get("views").children) {
    button.setAttribute("aria-pressed", String(button.dataset.view === name));
  }
  get("save").href = pictureOf(name, 1920);
}

/* --- the facts */

const ms = (seconds) => (seconds === undefined ? "–" : seconds >= 1 ? `${seconds.toFixed(1)} s` :
  `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`);
const colour = (state) => ({ live: "good", calibrating: "warn", ended: "" }[state] ?? "bad");
const NAMES = { ir: "Infrared", vis: "Visible" };

function showFacts(state) {
  const report = state.report;
  const lost = report.sources.filter((s) => colour(s.state) === "bad");
  const old = !state.frame || state.frame.age_s > 2;
  const status = get("status");
  status.textContent = report.ended ? "ended" : lost.length ? `${NAMES[lost[0].role]} ${lost[0].state}` :
    old ? "no picture" : state.frame.state === "fused" ? "live" : state.frame.state;
  status.className = `pill ${report.ended || lost.length || old ? "bad" : state.frame.state === "fused" ? "good" : "warn"}`;
  if (performance.now() > saidUntil) {
    get("notice").hidden = !(lost.length || old);
    get("notice").textContent = lost.length ? `${NAMES[lost[0].role]} camera ${lost[0].state}` : "no picture";
  }
  get("model").textContent = `${state.model} on ${state.engine}`;
  const latency = report.stages.output ?? report.stages.total;
  const dropped = report.sources.reduce((sum, s) => sum + s.dropped, 0);
  get("tiles").replaceChildren(...[
    [state.fps.toFixed(1), "frames per second"], [ms(latency?.p50), "camera to picture"], [ms(report.skew.p50), "skew"],
    [report.frames, "fused"], [dropped, "dropped"], [report.shown_alone, "shown alone"],
  ].map(([value, name]) => {
    const tile = element("div", "", "tile");
    tile.append(element("b", value), element("span", name));
    return tile;
  }));
  get("cameras").replaceChildren(...report.sources.map((s) => {
    const card = element("div", "", "card");
    card.title = s.name;
    card.append(
      element("b", `${NAMES[s.role]}: ${s.name}`), element("span", s.state, colour(s.state)),
      element("small", `${s.captured} captured, ${s.dropped} dropped, ${s.unpaired} unpaired, ${s.failed} failed; ` +
        `lost ${s.losses}×, ${s.downtime_s.toFixed(1)} s`),
    );
    return card;
  }));
  const quality = report.quality ? Object.entries(report.quality.means) : [];
  get("quality").hidden = !quality.length;
  get("scores").textContent = quality.map(([name, value]) => `${name} ${value.toFixed(2)}`).join(" · ");
  const ended = state.recording ? null : state.recording_problem;
  get("outputs").replaceChildren(
    ...(ended && report.sinks.every((s) => s.error !== ended) ? [element("li", `the recording ended: ${ended}`, "bad")] : []),
    ...report.sinks.map((s) => element("li", `${s.name}: ${s.error ?? `${s.written} written, ${s.dropped} dropped`}`,
      s.error ? "bad" : "")),
  );
  const watched = report.alignment;
  get("drift").hidden = !watched?.known;
  if (watched?.known) {
    const { off_px: off, direction, agreement_change: change } = watched;
    get("drift").textContent = `measured now: infrared is off by ${off.toFixed(1)} px${direction ? ` (${direction})` : ""}, ` +
      `its edges agree ${Math.abs(100 * change).toFixed(0)} % ${change < 0 ? "less" : "better"} than at the start`;
  }
  showAlignment(state.alignment);
  get("record").setAttribute("aria-pressed", String(Boolean(state.recording)));
  get("record").textContent = state.recording ? "Stop recording" : "Record";
  get("record").title = state.recording ?? "";
}

/* --- the alignment: distances from 1 to 1000 m on a logarithmic scale */

const metresOf = (value) => 10 ** (3 * value / 100);
let alignment = null, dragging = false;

function showAlignment(now) {
  alignment = now;
  get("alignment").hidden = !now;
  if (!now) return;
  get("distance").hidden = !now.has_distance;
  if (now.has_distance && !dragging) get("metres").value = 100 / 3 * Math.log10(now.distance ?? 1000);
  get("moved").textContent = `moved by ${now.x.toFixed(0)}, ${now.y.toFixed(0)} pixels` +
    (now.distance ? `, ${now.distance.toFixed(now.distance < 10 ? 1 : 0)} m` : "") +
    `; calibrated to ${now.residual_px.toFixed(1)} pixels` + (now.saved ? "" : "; not saved");
}

async function move(x, y, distance, more = {}) {
  const body = JSON.stringify({ x, y, distance, ...more });
  const answer = await fetch("api/alignment", { method: "POST", body });
  if (answer.ok) showAlignment((await answer.json()).alignment);
  else get("moved").textContent = await answer.text();
}

for (const button of document.querySelectorAll(".nudge button[data-x]")) {
  button.addEventListener("click", () => alignment &&
    move(alignment.x + Number(button.dataset.x), alignment.y + Number(button.dataset.y), chosen()));
}
const chosen = () => (alignment.has_distance ? alignment.distance : null);
get("metres").addEventListener("input", () => {
  dragging = true;
  if (alignment) move(alignment.x, alignment.y, metresOf(get("metres").value));
});
get("metres").addEventListener("change", () => { dragging = false; });
for (const [id, what] of [["refine", "refine"], ["keep", "save"]]) {
  get(id).addEventListener("click", () => alignment && move(alignment.x, alignment.y, chosen(), { [what]: true }));
}

/* 1, 2 or 5 times a power of ten. */
function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= least * 0.999);
}

function showChart(state) {
  const now = performance.now() / 1000, stages = state.report.stages, means = {};
  const tints = Object.keys(state.stages).map((name, i) => [name, TINTS[i % TINTS.length]]);
  for (const [name] of tints) {
    const count = stages[name]?.count ?? 0, before = last?.[name] ?? { count: 0, sum: 0 };
    if (count > before.count) means[name] = (stages[name].sum - before.sum) / (count - before.count);
  }
  last = Object.fromEntries(Object.entries(stages).map(([name, s]) => [name, { count: s.count, sum: s.sum }]));
  history = [...history.filter((h) => h.at > now - HISTORY), { at: now, means }];
  const chart = get("chart"), p = chart.getContext("2d"), ratio = Math.min(devicePixelRatio, 2);
  chart.width = chart.clientWidth * ratio;
  chart.height = 150 * ratio;
  p.scale(ratio, ratio);
  const [w, h] = [chart.clientWidth, 150];
  const most = Math.max(0.01, ...history.flatMap((x) => Object.values(x.means)));
  const step = roundStep(most / 3), top = most * 1.15, foot = 18;
  const yOf = (value) => h - foot - (h - foot - 8) * value / top;
  p.font = "11px system-ui";
  p.fillStyle = "#98a2b3";
  p.strokeStyle = "#2b313a";
  for (let value = 0; value < top; value += step) {
    const y = yOf(value);
    p.beginPath(); p.moveTo(0, y); p.lineTo(w, y); p.stroke();
    if (value) p.fillText(value >= 1 ? `${+value.toPrecision(3)} s` : `${+(1000 * value).toPrecision(3)} ms`, 6, y - 3);
  }
  p.fillText("1 minute ago", 6, h - 5);
  if (!history.some((x) => Object.keys(x.means).length)) p.fillText("nothing was fused in this minute", w / 4, h / 2);
  p.textAlign = "right";
  p.fillText("now", w - 6, h - 5);
  for (const [name, tint] of tints) {
    p.beginPath();
    p.strokeStyle = tint;
    p.lineWidth = 1.6;
    for (const x of history) {
      if (x.means[name] !== undefined) p.lineTo(w - (now - x.at) / HISTORY * w, yOf(x.means[name]));
    }
    p.stroke();
  }
  get("legend").replaceChildren(...tints.filter(([name]) => stages[name]).map(([name, tint]) => {
    const item = element("li", `${name} ${ms(stages[name].p50)}`), dot = document.createElement("i");
    item.title = state.stages[name];
    dot.style.background = tint;
    item.prepend(dot);
    return item;
  }));
}

async function watch() {
  for (;;) {
    try {
      const answer = await fetch("api/state");
      if (!answer.ok) throw new Error(answer.statusText);
      const state = await answer.json();
      dead = 0;
      showFacts(state);
      showChart(state);
    } catch {
      dead += 1;
      if (dead > 1) {
        get("status").textContent = "no connection";
        get("status").className = "pill bad";
        get("notice").hidden = false;
        get("notice").textContent = "no connection: this picture is old";
      }
    }
    await pause(500);
  }
}

for (const [name, title] of VIEWS) {
  const button = element("button", title);
  button.type = "button";
  button.dataset.view = name;
  button.addEventListener("click", () => choose(name));
  get("views").append(button);
}
for (const [name, title] of Object.entries(PALETTES)) get("palette").append(new Option(title, name));
get("palette").addEventListener("change", () => choose(view));
get("save").addEventListener("click", () => { // what was put together here is saved as it is shown
  if (CUT.has(view)) get("save").href = canvas.toDataURL("image/jpeg", 0.92);
});
get("record").addEventListener("click", async () => {
  const on = get("record").getAttribute("aria-pressed") !== "true";
  const answer = await fetch("api/recording", { method: "POST", body: JSON.stringify({ on }) });
  const { problem } = answer.ok ? await answer.json() : { problem: await answer.text() };
  if (problem) {
    get("notice").hidden = false;
    get("notice").textContent = problem;
    saidUntil = performance.now() + 5000; // long enough to be read
  }
});
choose("fused");
play();
watch();
