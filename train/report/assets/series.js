/* Scores of one stream: read out of the page, and thinned to what a screen shows. No drawing. */
"use strict";

laughstore.LEVELS = 65535;

/* Runs of [first frame, base64 of little-endian u2] -> runs of {start, values}. */
laughstore.unpack = function (packed, [low, high]) {
  return packed.map(([start, text]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const values = new Float64Array(bytes.length / 2);
    for (let i = 0; i < values.length; i++) {
      values[i] = low + (view.getUint16(2 * i, true) / laughstore.LEVELS) * (high - low);
    }
    return { start, values };
  });
};

/* Points of a line from `from` to `to` seconds on a screen of `columns`: every row where there is
   room, else the lowest and the highest of the rows of each column, as they come. */
laughstore.thinned = function (runs, from, to, columns, frame) {
  const x = [];
  const y = [];
  const perColumn = Math.max(1, Math.floor((to - from) / frame / columns));
  for (const run of runs) {
    const first = Math.max(0, Math.floor(from / frame) - run.start);
    const stop = Math.min(run.values.length, Math.ceil(to / frame) - run.start);
    if (first >= stop) continue;
    if (x.length) {
      x.push(null);
      y.push(null);
    }
    if (perColumn < 3) {
      for (let i = first; i < stop; i++) {
        x.push((run.start + i) * frame);
        y.push(run.values[i]);
      }
    } else {
      /* Columns are cut at multiples, so that a line does not tremble when it is moved. */
      let i = first;
      while (i < stop) {
        const end = Math.min(stop, (Math.floor((run.start + i) / perColumn) + 1) * perColumn - run.start);
        let low = i;
        let high = i;
        for (let k = i + 1; k < end; k++) {
          if (run.values[k] < run.values[low]) low = k;
          if (run.values[k] > run.values[high]) high = k;
        }
        for (const k of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
          x.push((run.start + k) * frame);
          y.push(run.values[k]);
        }
        i = end;
      }
    }
    /* A score holds for its whole frame. */
    x.push((run.start + stop) * frame);
    y.push(run.values[stop - 1]);
  }
  return { x, y, isThinned: perColumn >= 3 };
};

/* Rectangles of one trace that fills them, cut to what is seen; one around the other never occurs. */
laughstore.rectangles = function (stretches, from, to, low, high) {
  const x = [];
  const y = [];
  for (const [start, end] of stretches) {
    if (end < from || start > to) continue;
    if (x.length) {
      x.push(null);
      y.push(null);
    }
    const left = Math.max(start, from);
    const right = Math.min(end, to);
    x.push(left, left, right, right, left);
    y.push(low, high, high, low, low);
  }
  return { x, y };
};

/* Seconds as min:s.t, or h:min:s.t from an hour on. */
laughstore.clock = function (seconds, digits = 1) {
  const unit = 10 ** digits;
  const ticks = Math.max(0, Math.round(seconds * unit));
  const part = digits ? "." + String(ticks % unit).padStart(digits, "0") : "";
  const whole = Math.floor(ticks / unit);
  const two = (number) => String(number).padStart(2, "0");
  const tail = `${two(whole % 60)}${part}`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${tail}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${tail}`;
};
