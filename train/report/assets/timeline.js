/* The timeline: which recording, which part of it, where the cursor is, what is heard. */
"use strict";

laughstore.Timeline = class {
  constructor() {
    this.data = laughstore.data;
    this.plot = document.getElementById("plot");
    this.canvas = document.getElementById("canvas");
    this.cursorLine = document.getElementById("cursor");
    this.player = new laughstore.Player((time) => this.follow(time), () => this.showState());
    this.number = -1;
    this.spot = null;
    this.cursor = 0;
    this.isDrawing = false;
    this.wire();
    this.drawLegend();
    if (!this.goToHash()) this.choose(0);
  }

  get timeline() {
    return this.data.timelines[this.number];
  }

  wire() {
    const on = (id, act) => document.getElementById(id).addEventListener("click", act);
    on("closer", () => this.zoom(0.5));
    on("wider", () => this.zoom(2));
    on("whole", () => this.setView(...this.extent()));
    on("before", () => this.nextSpot(-1));
    on("after", () => this.nextSpot(1));
    on("play", () => this.togglePlay());
    document.getElementById("recording").addEventListener("change", (event) => this.choose(Number(event.target.value)));
    window.addEventListener("hashchange", () => this.goToHash());
    /* A second click on the same link changes no hash. */
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='#']");
      if (link && link.getAttribute("href") === location.hash) this.goToHash();
    });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    let pressed = null;
    this.canvas.addEventListener("pointerdown", (event) => (pressed = event));
    window.addEventListener("pointerup", (event) => {
      if (pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) < 5) {
        this.clicked(event);
      }
      pressed = null;
    });
  }

  drawLegend() {
    const legend = document.getElementById("legend");
    for (const [look, text] of laughstore.legendItems()) {
      const item = document.createElement("span");
      const key = document.createElement("i");
      key.className = look;
      item.append(key, text);
      legend.append(item);
    }
  }

  /* Show a recording, all of it or its first excerpt. */
  choose(number) {
    this.open(number);
    this.spot = null;
    this.describe("");
    this.setView(...this.extent());
  }

  open(number) {
    if (number === this.number) return;
    this.number = number;
    document.getElementById("recording").value = String(number);
    for (const stream of this.timeline.streams) {
      if (stream.runs) continue;
      stream.runs = laughstore.unpack(stream.scores, stream.bounds);
      stream.targetRuns = stream.targets ? laughstore.unpack(stream.targets, stream.bounds) : [];
      stream.levels = laughstore.levels(stream, this.data.threshold);
    }
    this.player.load(this.timeline.sounds);
    this.moveCursor(0);
    const text = this.timeline.sounds.length
      ? this.timeline.sounds.length === 1 && this.timeline.sounds[0].end >= this.timeline.end - 1
        ? ""
        : "sound around the listed spots only"
      : "no sound of this recording";
    document.getElementById("sound-text").textContent = text;
    document.getElementById("play").disabled = !this.timeline.sounds.length;
  }

  extent() {
    const { excerpts, end } = this.timeline;
    return excerpts ? excerpts[0] : [0, end];
  }

  setView(from, to) {
    const length = Math.max(0.8, Math.min(to - from, this.timeline.end));
    const start = Math.max(-0.02 * length, Math.min(from, this.timeline.end - length));
    this.from = start;
    this.to = start + length;
    this.draw();
  }

  zoom(factor) {
    const inView = this.cursor > this.from && this.cursor < this.to && !this.cursorLine.hidden;
    const middle = inView ? this.cursor : (this.from + this.to) / 2;
    const half = ((this.to - this.from) * factor) / 2;
    this.setView(middle - half, middle + half);
  }

  get width() {
    const { l, r } = laughstore.look.margin;
    return Math.max(50, this.canvas.clientWidth - l - r);
  }

  /* Draw once a screen refresh at most. */
  draw() {
    if (this.isDrawing || this.from === undefined) return;
    this.isDrawing = true;
    requestAnimationFrame(() => {
      this.isDrawing = false;
      this.drawNow();
    });
  }

  drawNow() {
    const view = { from: this.from, to: this.to, width: this.width };
    const { data, layout } = laughstore.timelineFigure(this.timeline, view, this.spot);
    const config = { ...laughstore.config, scrollZoom: true, doubleClick: false };
    const isFirst = !this.plot.data;
    Plotly.react(this.plot, data, layout, config);
    if (isFirst) {
      this.plot.on("plotly_relayout", (change) => {
        if (change["xaxis.range[0]"] !== undefined) this.setView(change["xaxis.range[0]"], change["xaxis.range[1]"]);
      });
      this.plot.on("plotly_relayouting", (change) => {
        if (change["xaxis.range[0]"] === undefined) return;
        this.from = change["xaxis.range[0]"];
        this.to = change["xaxis.range[1]"];
        this.placeCursor();
      });
    }
    this.placeCursor();
  }

  placeCursor() {
    const share = (this.cursor - this.from) / (this.to - this.from);
    this.cursorLine.hidden = !(share >= 0 && share <= 1);
    this.cursorLine.style.left = `${laughstore.look.margin.l + share * this.width}px`;
  }

  moveCursor(time) {
    this.cursor = time;
    document.getElementById("clock").textContent = laughstore.clock(time);
    if (this.from !== undefined) this.placeCursor();
  }

  /* While it plays: turn the page when the cursor leaves the view. */
  follow(time) {
    this.moveCursor(time);
    if (time > this.to || time < this.from) {
      const length = this.to - this.from;
      this.setView(time - 0.05 * length, time + 0.95 * length);
    }
  }

  clicked(event) {
    const box = this.canvas.getBoundingClientRect();
    const { l, t, b } = laughstore.look.margin;
    const x = event.clientX - box.left - l;
    const y = event.clientY - box.top;
    if (x < 0 || x > this.width || y < t || y > box.height - b) return;
    const time = this.from + (x / this.width) * (this.to - this.from);
    this.moveCursor(Math.max(0, time));
    if (this.timeline.sounds.length) this.tell(this.player.seek(this.cursor));
  }

  togglePlay() {
    if (this.player.playing) {
      this.player.stop();
      return;
    }
    const inView = this.cursor >= this.from && this.cursor < this.to;
    this.tell(this.player.play(inView ? this.cursor : Math.max(0, this.from)));
  }

  tell(isHeard) {
    if (!isHeard) document.getElementById("sound-text").textContent = "no sound of this moment";
    else if (this.player.clip) {
      const { start, end } = this.player.clip;
      document.getElementById("sound-text").textContent = `sound of ${laughstore.clock(start)} to ${laughstore.clock(end)}`;
    }
  }

  showState() {
    const button = document.getElementById("play");
    button.textContent = this.player.playing ? "❚❚" : "▶";
    button.setAttribute("aria-label", this.player.playing ? "Pause" : "Play");
  }

  describe(text) {
    document.getElementById("spot-text").textContent = text;
  }

  goToSpot(number) {
    const spot = this.data.spots[number];
    this.open(spot.timeline);
    this.spot = { ...spot, number };
    const half = Math.max(10, 1.5 * (spot.end - spot.start));
    const middle = (spot.start + spot.end) / 2;
    this.setView(middle - half, middle + half);
    const before = Math.max(0, spot.start - 1);
    this.moveCursor(before);
    if (this.timeline.sounds.length) this.tell(this.player.seek(before));
    const names = this.data.kind === "numbers" ? { "false alarm": "overestimate", miss: "underestimate" } : {};
    const who = this.timeline.streams[spot.stream].title;
    this.describe(`${names[spot.kind] || spot.kind} at ${laughstore.clock(spot.start)}, ${who}`);
  }

  /* The listed spot of this recording before or behind the one at hand, else the view's middle. */
  nextSpot(direction) {
    const here = this.spot ? this.spot.start : (this.from + this.to) / 2;
    const others = this.data.spots
      .map((spot, number) => ({ ...spot, number }))
      .filter((spot) => spot.timeline === this.number && direction * (spot.start - here) > 0)
      .sort((a, b) => direction * (a.start - b.start));
    if (others.length) history.replaceState(null, "", `#spot-${others[0].number}`);
    if (others.length) this.goToSpot(others[0].number);
  }

  goToHash() {
    const spot = /^#spot-(\d+)$/.exec(location.hash);
    const recording = /^#recording-(.+)$/.exec(location.hash);
    if (spot && Number(spot[1]) < this.data.spots.length) this.goToSpot(Number(spot[1]));
    else if (recording) {
      const number = this.data.timelines.findIndex((item) => item.id === recording[1]);
      if (number < 0) return false;
      this.choose(number);
    } else return false;
    document.getElementById("timeline").scrollIntoView();
    return true;
  }
};

if (laughstore.data.timelines.length) laughstore.timeline = new laughstore.Timeline();
