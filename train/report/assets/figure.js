/* The figure of a recording along time: one panel a stream, of what lies in view. */
"use strict";

laughstore.look = {
  line: "#0b3c5d",
  target: "#7a8793",
  event: "rgba(230,159,0,0.38)",
  eventEdge: "#b87f00",
  missed: "#CC79A7",
  right: "#0072B2",
  wrong: "#D55E00",
  neither: "#98a3ae",
  ignored: "rgba(120,130,140,0.16)",
  window: "rgba(240,228,66,0.35)",
  margin: { l: 46, r: 12, t: 6, b: 34 },
  panel: 150,
  gap: 26,
};

laughstore.figureHeight = function (timeline) {
  const { margin, panel, gap } = laughstore.look;
  const num = timeline.streams.length;
  return margin.t + margin.b + num * (panel + gap);
};

/* Scores reach from `low` to `top`; marks of what was predicted stand above, in `lane`. */
laughstore.levels = function (stream, threshold) {
  let top = threshold === null ? 0 : 1.15 * threshold;
  for (const run of [...stream.runs, ...stream.targetRuns]) for (const value of run.values) top = Math.max(top, value);
  const low = stream.bounds[0];
  top = Math.max(low + 1e-6, Math.min(stream.bounds[1], low + 1.04 * (top - low)));
  const size = top - low;
  return { low, top, lane: [top + 0.07 * size, top + 0.19 * size], high: top + 0.26 * size };
};

laughstore.ticks = function (from, to, width) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  const most = Math.max(2, Math.floor(width / 80));
  const step = steps.find((item) => (to - from) / item <= most) || 7200;
  const values = [];
  for (let i = Math.ceil(from / step); i * step <= to; i++) values.push(i * step);
  return { values, texts: values.map((value) => laughstore.clock(value, step < 1 ? 1 : 0)) };
};

laughstore.panelTraces = function (stream, number, view) {
  const { look } = laughstore;
  const { data } = laughstore;
  const axes = { xaxis: "x", yaxis: number ? `y${number + 1}` : "y", showlegend: false };
  const { low, top, lane, high } = stream.levels;
  const margin = view.to - view.from;
  const from = view.from - margin;
  const to = view.to + margin;
  const filled = (stretches, bottom, ceiling, fill, edge, more) => ({
    type: "scatter",
    mode: "lines",
    ...laughstore.rectangles(stretches, from, to, bottom, ceiling),
    fill: "toself",
    fillcolor: fill,
    line: { color: edge, width: edge === "rgba(0,0,0,0)" ? 0 : 1.5 },
    hoverinfo: "skip",
    ...axes,
    ...more,
  });
  const none = "rgba(0,0,0,0)";
  const of = (stretches, verdict) => stretches.filter((item) => item[3] === verdict);
  const traces = [filled(stream.ignored, low, high, look.ignored, none)];
  if (data.kind === "onset" || data.kind === "interval" || data.kind === "numbers") {
    traces.push(filled(stream.positive, low, high, look.window, none));
  }
  traces.push(filled(stream.events, low, high, look.event, look.eventEdge, { line: { color: look.eventEdge, width: 0.6 } }));
  const missed = of(stream.awaited, 0);
  if (data.kind !== "numbers") {
    traces.push(
      filled(missed, low, high, "rgba(204,121,167,0.22)", look.missed, {
        line: { color: look.missed, width: 1.5, dash: "dot" },
      }),
    );
  }
  for (const [verdict, color] of [[-1, look.neither], [1, look.right], [0, look.wrong]]) {
    traces.push(filled(of(stream.predicted, verdict), lane[0], lane[1], color, color));
  }
  if (data.threshold !== null && data.kind !== "numbers") {
    traces.push({
      type: "scatter",
      mode: "lines",
      x: [from, to],
      y: [data.threshold, data.threshold],
      line: { color: look.wrong, width: 1, dash: "dash" },
      hoverinfo: "skip",
      ...axes,
    });
  }
  /* From afar two points a column, joined as they are; from near steps, one a row. */
  const drawn = (runs, color, width, name) => {
    const { x, y, isThinned } = laughstore.thinned(runs, from, to, view.width, data.frame);
    return {
      type: "scatter",
      mode: "lines",
      x,
      y,
      line: isThinned ? { color, width: 0.9 } : { color, width, shape: "hv" },
      connectgaps: false,
      hovertemplate: `%{text} · ${name} %{y:.4f}<extra></extra>`,
      ...axes,
    };
  };
  if (stream.targetRuns.length) traces.push(drawn(stream.targetRuns, look.target, 1.25, "should be"));
  traces.push(drawn(stream.runs, look.line, 1.5, "score"));
  for (const trace of traces) {
    if (trace.hovertemplate) {
      trace.text = trace.x.map((value) => (value === null ? "" : laughstore.clock(value, 2)));
    }
  }
  return traces;
};

laughstore.timelineFigure = function (timeline, view, spot) {
  const { margin, panel, gap } = laughstore.look;
  const height = laughstore.figureHeight(timeline);
  const inner = height - margin.t - margin.b;
  const ticks = laughstore.ticks(view.from, view.to, view.width);
  const layout = {
    height,
    autosize: true,
    margin,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "#fff",
    font: { family: "system-ui, sans-serif", size: 11.5, color: "#1f2933" },
    showlegend: false,
    dragmode: "pan",
    hovermode: "closest",
    hoverdistance: 12,
    xaxis: {
      range: [view.from, view.to],
      tickvals: ticks.values,
      ticktext: ticks.texts,
      gridcolor: "#edf0f3",
      zeroline: false,
      linecolor: "#b8c1ca",
      ticks: "outside",
      tickcolor: "#b8c1ca",
      anchor: timeline.streams.length > 1 ? `y${timeline.streams.length}` : "y",
    },
    annotations: [],
    shapes: [],
  };
  const data = [];
  timeline.streams.forEach((stream, number) => {
    const upper = inner - number * (panel + gap) - gap;
    const { low, top, high } = stream.levels;
    layout[number ? `yaxis${number + 1}` : "yaxis"] = {
      domain: [(upper - panel) / inner, upper / inner],
      range: [low, high],
      fixedrange: true,
      tickvals: [low, (low + top) / 2, top],
      tickformat: top - low < 0.05 ? ".3f" : ".2f",
      gridcolor: "#edf0f3",
      zeroline: false,
      linecolor: "#b8c1ca",
    };
    layout.annotations.push({
      xref: "paper",
      yref: "paper",
      x: 0,
      y: upper / inner,
      xanchor: "left",
      yanchor: "bottom",
      showarrow: false,
      text: laughstore.escaped(stream.title),
      font: { size: 12, color: "#5b6773" },
    });
    if (spot && spot.stream === number) {
      layout.shapes.push({
        type: "rect",
        xref: "x",
        yref: number ? `y${number + 1} domain` : "y domain",
        x0: spot.start - laughstore.data.frame / 2,
        x1: spot.end + laughstore.data.frame / 2,
        y0: 0,
        y1: 1,
        line: { color: "#1f2933", width: 2 },
        fillcolor: "rgba(0,0,0,0)",
        layer: "above",
      });
    }
    data.push(...laughstore.panelTraces(stream, number, view));
  });
  return { data, layout };
};

/* The plotting library takes a few tags in texts; names may hold what looks like one. */
laughstore.escaped = function (text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
};

laughstore.legendItems = function () {
  const { data } = laughstore;
  const event = data.event;
  const items = [["line", data.kind === "numbers" ? "predicted" : data.scores === "probability" ? "probability" : "score"]];
  if (data.kind === "numbers") items.push(["target", "what it should be"]);
  else if (data.threshold !== null) items.push(["threshold", "threshold"]);
  items.push(["event", `annotated ${event}`]);
  if (data.kind === "numbers") {
    items.push(["right window", "rows to foresee it"]);
    items.push(["wrong", "largest overestimates"]);
  } else if (data.kind === "onset" || data.kind === "interval") {
    items.push(["window", "window to foresee it"], ["missed", "missed window"], ["right", "alarm, right"], ["wrong", "alarm, false"]);
  } else {
    items.push(["missed", "missed"], ["right", "predicted, right"], ["wrong", "predicted, false"]);
    const isThere = (stream) => stream.predicted.some((item) => item[3] === -1);
    if (data.timelines.some((item) => item.streams.some(isThere))) items.push(["neither", "not judged"]);
  }
  items.push(["ignored", "ignored rows"]);
  return items;
};
