// Draws the charts of a report from the data that the page holds. What comes from a run reaches the
// page as text alone (textContent), never as markup.
(() => {
  "use strict";
  const runs = JSON.parse(document.getElementById("runs").textContent) || [];
  const figures = [...document.querySelectorAll("figure.chart")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const units = {step: "step", tokens: "tokens", seconds: "s"};
  const view = {across: "step", logX: false, logY: false, smooth: 1};
  let charts = [];

  // Okabe and Ito's colours; blue and green are lighter on a dark page.
  const colours = () => [dark.matches ? "#58b0ea" : "#0072b2", "#d55e00", dark.matches ? "#2fc796" : "#009e73",
                         "#cc79a7", "#e69f00", dark.matches ? "#a6d8f5" : "#56b4e9"];
  const patterns = [null, [2, 3], [10, 3, 2, 3]];  // once the colours are used up
  const dashed = [6, 4];
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function number(value, digits = 5) {
    if (value === null || value === undefined || !isFinite(value)) return "–";
    if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(2);
    return value.toLocaleString("en", {maximumSignificantDigits: Math.max(digits, Math.trunc(Math.abs(value)).toString().length)});
  }

  // The mean of each value and those before it, `count` in all; a gap stays one.
  function smoothed(values, count) {
    if (count === 1) return values;
    return values.map((value, i) => {
      if (value === null) return null;
      const known = values.slice(Math.max(0, i - count + 1), i + 1).filter((v) => v !== null);
      return known.reduce((sum, v) => sum + v, 0) / known.length;
    });
  }

  // What a figure draws: one series for each run and column that has values.
  function seriesOf(figure) {
    const scale = Number(figure.dataset.scale), columns = figure.dataset.columns.split(" ");
    const list = [];
    runs.forEach((run, r) => run.curves.forEach((curve) => columns.forEach((column, c) => {
      if (!curve.columns[column] || curve.columns[column].every((v) => v === null)) return;
      const scaled = (values) => smoothed(values.map((v) => v === null ? null : v * scale), view.smooth);
      const name = columns.length === 1 ? "" : c === 0 ? "training" : "validation";
      list.push({
        name: runs.length === 1 ? name : run.label + (c > 0 ? ", " + name : ""), curve,
        colour: colours()[(runs.length === 1 ? c : r) % 6],
        pattern: runs.length === 1 ? null : c > 0 ? dashed : patterns[Math.trunc(r / 6) % 3],
        points: c > 0, middle: scaled(curve.columns[column]), at: new Map(),
        low: curve.low[column] && scaled(curve.low[column]), high: curve.high[column] && scaled(curve.high[column]),
      });
    })));
    return list;
  }

  // A row for each place along the run that any series knows. null is a place that a series says
  // nothing about, and is drawn over; NaN is a value that is missing, and a gap.
  function rowsOf(series, bars) {
    const rows = new Map();
    series.forEach((one, s) => one.curve[view.across].forEach((x, i) => {
      if (x === null || (view.logX && x <= 0)) return;
      if (!rows.has(x)) rows.set(x, [x, ...series.map(() => null)]);
      const y = one.middle[i] === null ? NaN : one.middle[i];
      const low = one.low && one.low[i] !== null ? one.low[i] : y, high = one.high && one.high[i] !== null ? one.high[i] : y;
      rows.get(x)[s + 1] = bars ? [low, y, high] : y;
      one.at.set(x, i);
    }));
    return [...rows.values()].sort((a, b) => a[0] - b[0]);
  }

  function placeText(curve, i) {
    const x = curve[view.across][i];
    if (view.across !== "step") return number(x, 4) + " " + units[view.across];
    return curve.bucket > 1 ? `steps ${number(curve.from[i])} to ${number(x)}` : `step ${number(x)}`;
  }

  // The names of the series and, where the pointer is, their values.
  function showValues(figure, series, x) {
    const [also, alsoUnit] = figure.dataset.also.split(" ");
    const box = figure.querySelector(".values");
    box.replaceChildren();
    series.forEach((one, s) => {
      const i = one.at.get(x), here = i !== undefined;
      if (!one.name && !here) return;
      if (x !== undefined && !here) return;
      const item = document.createElement("span"), line = document.createElement("i");
      line.style.borderTopColor = one.colour;
      line.classList.toggle("dashed", one.pattern !== null);
      let text = one.name;
      if (here) {
        text += `${text ? ": " : ""}${number(one.middle[i])} ${figure.dataset.unit.split(",")[0]}`;
        if (one.low && one.low[i] !== null) text += ` (${number(one.low[i])} to ${number(one.high[i])})`;
        if (also && one.curve.columns[also]) text += `, ${number(one.curve.columns[also][i], 3)} ${alsoUnit}`;
        if (s === 0 || runs.length > 1) text += ` at ${placeText(one.curve, i)}`;
      }
      item.append(line, text);
      box.append(item);
    });
  }

  // On a touch screen one finger scrolls the page; two zoom the chart.
  function interaction() {
    const model = {...Dygraph.defaultInteractionModel};
    for (const event of ["touchstart", "touchmove", "touchend"]) {
      const usual = model[event];
      model[event] = (e, chart, context) => {
        if (e.touches.length > 1 || (event === "touchend" && context.initialTouches && context.initialTouches.length > 1)) usual(e, chart, context);
      };
    }
    return model;
  }

  // The steps that the timing leaves out lie in the shade.
  function shade(canvas, area, chart) {
    if (runs.length !== 1 || !runs[0].untimed_steps || view.across !== "step") return;
    const end = Math.min(chart.toDomXCoord(runs[0].untimed_steps + 0.5), area.x + area.w);
    canvas.fillStyle = style("--shade");
    if (end > area.x) canvas.fillRect(area.x, area.y, end - area.x, area.h);
  }

  function draw(figure) {
    const series = seriesOf(figure);
    const bars = series.some((one) => one.low);
    const rows = rowsOf(series, bars);
    const logY = view.logY && series.some((one) => one.middle.some((v) => v > 0));
    showValues(figure, series);
    if (rows.length === 0) return null;
    const first = rows[0][0], last = rows[rows.length - 1][0];
    const axis = {drawGrid: true, gridLineColor: style("--line"), axisLineColor: style("--line")};
    const options = {
      labels: ["x", ...series.map((_, s) => String(s))], colors: series.map((one) => one.colour),
      series: Object.fromEntries(series.map((one, s) => [String(s), {
        strokePattern: one.pattern, drawPoints: one.points || rows.length <= 40, pointSize: one.points ? 3 : 2}])),
      customBars: bars, connectSeparatedPoints: true, strokeWidth: 1.7, fillAlpha: 0.2, highlightCircleSize: 4,
      legend: "never", includeZero: figure.dataset.from === "0" && !logY, yRangePad: 10, xRangePad: 5, rightGap: 12, logscale: logY, interactionModel: interaction(),
      dateWindow: first < last ? null : view.logX ? [first / 2, first * 2] : [first - 1, first + 1],
      axes: {
        x: {...axis, logscale: view.logX, axisLabelFormatter: (v) => number(v, 4), pixelsPerLabel: 70},
        y: {...axis, axisLabelFormatter: (v) => number(v, 4), axisLabelWidth: 62},
      },
      highlightCallback: (_, x) => showValues(figure, series, x),
      unhighlightCallback: () => showValues(figure, series),
      zoomCallback: (low, high) => charts.forEach((other) => {
        if (other && other !== chart) other.updateOptions({dateWindow: [low, high]});
      }),
    };
    if (figure.classList.contains("timed")) options.underlayCallback = shade;
    const chart = new Dygraph(figure.querySelector(".plot"), rows, options);
    return chart;
  }

  function drawAll() {
    charts.forEach((chart) => chart && chart.destroy());
    charts = [];
    charts = figures.map(draw);
    document.documentElement.dataset.charts = charts.filter((chart) => chart).length;
  }

  function steer() {
    const find = (id) => document.getElementById(id);
    const tools = document.querySelector(".tools");
    if (!tools) return;
    tools.hidden = false;
    const on = (id, change) => find(id).addEventListener("input", (event) => {
      change(event.target);
      drawAll();
    });
    on("across", (target) => { view.across = target.value; });
    on("log-x", (target) => { view.logX = target.checked; });
    on("log-y", (target) => { view.logY = target.checked; });
    on("smooth", (target) => { view.smooth = Number(target.value); find("smoothed").value = target.value; });
    find("whole").addEventListener("click", drawAll);
    dark.addEventListener("change", drawAll);
  }

  steer();
  drawAll();
})();
